#pragma once
// The forward direction of a transfer, checked: what untrusted messages say becomes one of these plain types here, and
// nobody checks again what the types say. Order, counts and offsets are ForwardCheck's (forward-check.h).

#include <kj/array.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "protocol/transfer/frame.h"
#include "protocol/transfer/problem.h"

namespace postern::transfer {

// A single path component: 1 to MAX_NAME_BYTES bytes, no '/', no NUL, neither "." nor "..".
bool isComponent(kj::ArrayPtr<const kj::byte> untrusted);

enum class EntryKind : uint8_t {
  FILE,
  DIRECTORY,
  SYMBOLIC_LINK,
  HARD_LINK,
  FIFO,
  CHARACTER_DEVICE,
  BLOCK_DEVICE,
  SOCKET,  // in lists only
};

struct Attribute {
  kj::String name;  // "user.…", "system.posix_acl_…", "security.…", "trusted.…": 1 to 255 bytes
  kj::Array<kj::byte> value;
};

// What belongs to a kind alone is empty, zero or false in entries of other kinds.
struct Entry {
  EntryKind kind = EntryKind::FILE;
  kj::String name;  // isComponent(); any other bytes, not necessarily UTF-8
  uint16_t mode = 0;
  int64_t modifiedSeconds = 0;
  uint32_t modifiedNanoseconds = 0;  // below 10^9
  uint32_t uid = 0;
  uint32_t gid = 0;
  kj::String owner, group;
  uint64_t size = 0;              // FILE: at most MAX_FILE_BYTES
  kj::String target;              // SYMBOLIC_LINK
  kj::Vector<kj::String> linkTo;  // HARD_LINK: 1 to MAX_DEPTH + 1 components
  bool hasLinks = false;          // FILE, as all below but devices' numbers and attributes
  uint32_t deviceMajor = 0;       // CHARACTER_DEVICE, BLOCK_DEVICE
  uint32_t deviceMinor = 0;
  kj::Vector<Attribute> attributes;
  bool inlined = false;
  bool wantsBase = false;               // not inlined
  bool stream = false;                  // not inlined, size 0
  kj::Maybe<kj::Array<kj::byte>> hash;  // HASH_BYTES; inlined
};

struct Totals {
  uint64_t files = 0;
  uint64_t directories = 0;
  uint64_t bytes = 0;
  uint32_t deepest = 0;
  uint32_t tops = 0;
  bool stream = false;  // one file and nothing else
  uint64_t holes = 0;   // at most `bytes`
};

// What a frame of the forward direction says. Content stays in the frame: of an inlined entry, and of Data.
struct Data {
  uint64_t offset;
};
struct Hole {
  uint64_t offset;
  uint64_t bytes;
};
struct Same {
  uint64_t offset;
  uint64_t bytes;
};
struct FileEnd {
  kj::Maybe<kj::Array<kj::byte>> hash;
};
struct FileFailed {
  Problem problem;
};
struct Leave {};
struct EntryFailed {
  kj::String name;
  Problem problem;
};
struct Done {};
using Forward = kj::OneOf<Totals, Entry, Data, Hole, Same, FileEnd, FileFailed, Leave, EntryFailed, Done>;

// Content must fit the message: of Data 1 to DATA_BYTES, of an inlined entry exactly its size, of all others none.
kj::OneOf<Forward, FrameError> parseForward(FrameView& untrusted);
kj::OneOf<Forward, FrameError> parseForward(schema::Forward::Reader untrusted, size_t contentBytes);
// The same for whoever reads it as a part of something else, within parsing() (malformed.h): throws for what is
// malformed.
kj::Maybe<FrameError> readForward(schema::Forward::Reader untrusted, size_t contentBytes, Forward& to);
void write(const Forward& from, schema::Forward::Builder to);

}  // namespace postern::transfer
