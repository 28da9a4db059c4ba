#pragma once

#include <kj/vector.h>

#include "protocol/session.h"

namespace postern::guest::test {

// All bulk channels that this end may still open: one more is above what the session has room for.
inline kj::Vector<kj::Own<BulkChannel>> openEveryChannel(Session& session) {
  kj::Vector<kj::Own<BulkChannel>> channels;
  for (;;) {
    auto opened = session.bulk().open();
    KJ_IF_MAYBE (one, opened) {
      channels.add(kj::mv(one->channel));
    } else {
      return channels;
    }
  }
}

}  // namespace postern::guest::test
