#pragma once
// Integers on the wire are little-endian, at any alignment.

#include <kj/common.h>
#include <stddef.h>
#include <stdint.h>

namespace postern {

template <typename T>
inline void putLittleEndian(T value, kj::byte* out) {
  for (size_t i = 0; i < sizeof(T); ++i) out[i] = static_cast<kj::byte>(value >> (8 * i));
}

template <typename T>
inline T getLittleEndian(const kj::byte* in) {
  T value = 0;
  for (size_t i = 0; i < sizeof(T); ++i)
    value = static_cast<T>(value | static_cast<T>(static_cast<T>(in[i]) << (8 * i)));
  return value;
}

}  // namespace postern
