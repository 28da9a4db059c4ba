#pragma once
// The backward direction of a transfer, checked.

#include <kj/one-of.h>

#include "protocol/transfer/frame.h"
#include "protocol/transfer/problem.h"

namespace postern::transfer {

struct Ready {
  bool into;
};
struct Refused {
  Problem problem;
};
struct Base {
  uint64_t bytes;
};
struct Hashes {
  kj::Array<kj::byte> hashes;  // a multiple of HASH_BYTES, at least one, at most MAX_HASHES
};
struct DestinationFailed {
  uint64_t entry;
  kj::String path;
  Problem problem;
};
struct Progress {
  uint64_t entries;
  uint64_t bytes;
};
struct Summary {
  uint64_t files = 0;
  uint64_t directories = 0;
  uint64_t bytes = 0;
  uint64_t sentBytes = 0;
  uint64_t failures = 0;
  uint64_t unchanged = 0;
};
using Backward = kj::OneOf<Ready, Refused, Base, Hashes, DestinationFailed, Progress, Summary>;

kj::OneOf<Backward, FrameError> parseBackward(FrameView& untrusted);
kj::OneOf<Backward, FrameError> parseBackward(schema::Backward::Reader untrusted);
// The same for whoever reads it as a part of something else, within parsing() (malformed.h).
kj::Maybe<FrameError> readBackward(schema::Backward::Reader untrusted, Backward& to);
void write(const Backward& from, schema::Backward::Builder to);

// Numbers are cut at their bounds.
Summary parseSummary(schema::Summary::Reader untrusted);
void write(const Summary& from, schema::Summary::Builder to);

}  // namespace postern::transfer
