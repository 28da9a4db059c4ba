#pragma once
// What an opener and its mover say to each other (schema::ToMover, schema::ToOpener), checked: forward and backward
// messages, and the few that stay between the two.

#include <kj/one-of.h>

#include "protocol/transfer/entry.h"
#include "protocol/transfer/progress.h"

namespace postern::transfer {

// Destination opener to its mover: brings one descriptor, and with `hasBase` a second one.
struct Opened {
  uint64_t entry = 0;
  bool resumed = false;
  bool hasBase = false;
};

// Destination mover to its opener.
struct Whole {};
struct Unchanged {};
struct Kept {};
using Outcome = kj::OneOf<Whole, Unchanged, Problem, Kept>;
struct Commit {
  uint64_t entry = 0;
  Outcome outcome;
  bool synced = false;
};

// Source mover to its opener.
struct Sent {
  uint64_t bytes = 0;  // at most MAX_FILE_BYTES
};

using ToMover = kj::OneOf<Forward, Backward, Opened>;
using ToOpener = kj::OneOf<Forward, Backward, Commit, Sent>;

// Content as parseForward() and parseBackward() want it; the others have none.
kj::OneOf<ToMover, FrameError> parseToMover(FrameView& untrusted);
kj::OneOf<ToOpener, FrameError> parseToOpener(FrameView& untrusted);
void write(const Opened& from, schema::Opened::Builder to);
void write(const Commit& from, schema::Commit::Builder to);

}  // namespace postern::transfer
