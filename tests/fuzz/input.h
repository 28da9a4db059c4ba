#pragma once
// Input: the bytes of one run, read from the front, so that a seed can be written by hand. An input that is used up
// goes on with zeros.

#include <kj/array.h>
#include <stddef.h>
#include <stdint.h>

#include <algorithm>

#include "protocol/wire-int.h"

namespace postern::fuzz {

class Input {
 public:
  Input(const uint8_t* data, size_t size) : rest(data, size) {}

  bool isEmpty() const { return rest.size() == 0; }

  uint8_t u8() { return number<uint8_t>(); }
  uint16_t u16() { return number<uint16_t>(); }
  uint32_t u32() { return number<uint32_t>(); }

  // At most `size` bytes, as many as there are.
  kj::ArrayPtr<const kj::byte> take(size_t size) {
    auto taken = rest.slice(0, std::min(size, rest.size()));
    rest = rest.slice(taken.size(), rest.size());
    return taken;
  }
  kj::ArrayPtr<const kj::byte> takeAll() { return take(rest.size()); }

 private:
  kj::ArrayPtr<const kj::byte> rest;

  template <typename T>
  T number() {
    kj::byte bytes[sizeof(T)] = {};
    auto taken = take(sizeof(T));
    std::copy(taken.begin(), taken.end(), bytes);
    return getLittleEndian<T>(bytes);
  }
};

// A copy in an allocation of its own and exactly its size, so that AddressSanitizer sees every byte too many.
inline kj::Array<kj::byte> copyOf(kj::ArrayPtr<const kj::byte> bytes) {
  return kj::heapArray<kj::byte>(bytes);
}

}  // namespace postern::fuzz
