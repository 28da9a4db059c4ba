#pragma once
// DestinationConversation: what a destination opener hears from its mover, checked (ForwardCheck), and says to it.

#include "protocol/transfer/forward-check.h"
#include "protocol/transfer/opener-message.h"
#include "transport/transfer/opener-socket.h"
#include "transport/transfer/source-opener.h"

namespace postern::transfer {

struct Quiet {};  // nothing came within the limit

class DestinationConversation {
 public:
  DestinationConversation(kj::AutoCloseFd mover, ForwardCheck::Form form);
  KJ_DISALLOW_COPY(DestinationConversation);

  // What came next. A Problem: it is over. A forward message is in order; content() are the bytes of an inlined entry,
  // path() in a listing the components of an entry, or of one that failed, from the top: until the next call.
  using Heard = kj::OneOf<Forward, Commit, Sent, Quiet, Problem>;
  Heard next(kj::Maybe<kj::Duration> limit);
  kj::StringPtr path() const { return lastPath; }
  kj::ArrayPtr<const kj::byte> content() const { return lastContent; }
  const ForwardCheck& order() const { return check; }
  // Whether next() has something without waiting; if not, what was put goes out.
  bool hasNext();

  // A mover that has gone is told by next().
  void put(const Backward& message);
  void put(const Opened& message, kj::ArrayPtr<const int> descriptors);
  void flush();

 private:
  OpenerSocket socket;
  ForwardCheck check;
  bool listing;
  FrameBuilder frame;
  kj::String lastPath;
  kj::ArrayPtr<const kj::byte> lastContent;
  bool gone = false;
};

}  // namespace postern::transfer
