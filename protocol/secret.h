#pragma once
// Secret<N>: N bytes that wipe themselves. Move-only, without conversion to text, comparison in constant time only.
// Lies where its owner lies (a link's own struct before authentication); long-lived keys are put into locked memory
// by their owner (identity.h).

#include <kj/array.h>
#include <kj/common.h>
#include <sodium.h>
#include <string.h>

namespace postern {

template <size_t N>
class Secret {
 public:
  static constexpr size_t SIZE = N;

  Secret() : bytes{} {}
  explicit Secret(kj::ArrayPtr<const kj::byte> from) {
    KJ_IREQUIRE(from.size() == N);
    memcpy(bytes, from.begin(), N);
  }
  Secret(Secret&& other) noexcept {
    memcpy(bytes, other.bytes, N);
    other.wipe();
  }
  Secret& operator=(Secret&& other) noexcept {
    if (this != &other) {
      memcpy(bytes, other.bytes, N);
      other.wipe();
    }
    return *this;
  }
  // T37
  ~Secret() { wipe(); }
  KJ_DISALLOW_COPY(Secret);

  // A deliberate copy; named so that it shows in a review.
  [[nodiscard]] Secret clone() const { return Secret(asPtr()); }

  void wipe() { sodium_memzero(bytes, N); }
  [[nodiscard]] bool equals(const Secret& other) const { return sodium_memcmp(bytes, other.bytes, N) == 0; }
  [[nodiscard]] bool isZero() const { return sodium_is_zero(bytes, N) == 1; }

  kj::byte* begin() { return bytes; }
  const kj::byte* begin() const { return bytes; }
  kj::ArrayPtr<const kj::byte> asPtr() const { return kj::arrayPtr(bytes, N); }
  kj::ArrayPtr<kj::byte> asPtr() { return kj::arrayPtr(bytes, N); }

 private:
  kj::byte bytes[N];
};

}  // namespace postern
