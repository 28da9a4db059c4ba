#pragma once
// DestinationFolder: a directory of the transfer at its destination, from its entry until it was left and everything in
// it has its name.

#include <kj/io.h>
#include <kj/refcount.h>

#include "protocol/transfer/entry.h"

namespace postern::transfer {

struct DestinationFolder final : public kj::Refcounted {
  kj::AutoCloseFd descriptor;  // null: it could not be made, and neither can what is in it
  kj::Maybe<Problem> lacks;    // why
  kj::String path;             // from the top of the transfer, for people; empty: where the tops are
  kj::String scopePath;        // canonical
  Entry description;           // what it is given when it was left and nothing waits any more
  uint64_t entry = 0;          // its number
  uint64_t device = 0;
  bool made = false;     // by this transfer
  bool touched = false;  // names were made in it
  bool left = false;
  uint32_t waiting = 0;  // of what is in it: what has no name yet
};

}  // namespace postern::transfer
