#pragma once
// Where nonces, ephemeral keys and jitter come from. Injected, since protocol/ makes no system call.

#include <kj/array.h>
#include <kj/common.h>

namespace postern {

class Random {
 public:
  virtual ~Random() noexcept(false) {}
  // Fills the whole buffer with bytes that cannot be predicted; never fails and never blocks after boot.
  virtual void fill(kj::ArrayPtr<kj::byte> out) = 0;
};

}  // namespace postern
