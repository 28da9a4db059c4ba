#pragma once
// The system's randomness (getrandom, which waits only before the kernel's pool is first filled, early in boot).

#include "protocol/random.h"

namespace postern {

class SystemRandom final : public Random {
 public:
  // Throws only if the kernel refuses the call, as a wrong sandbox would make it.
  void fill(kj::ArrayPtr<kj::byte> out) override;
};

}  // namespace postern
