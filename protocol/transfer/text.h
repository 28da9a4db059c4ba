#pragma once
// Names and paths of any bytes, which travel as Data and live as kj::String.

#include <capnp/blob.h>
#include <kj/string.h>
#include <string.h>

namespace postern::transfer {

inline bool hasNul(kj::ArrayPtr<const kj::byte> bytes) {
  return bytes.size() > 0 && memchr(bytes.begin(), '\0', bytes.size()) != nullptr;
}
inline bool isText(kj::StringPtr text, size_t most) {
  return text.size() <= most && !hasNul(text.asBytes());
}
inline kj::String stringOf(kj::ArrayPtr<const kj::byte> bytes) {
  return kj::heapString(bytes.asChars());
}

}  // namespace postern::transfer
