#pragma once
// How many X25519 multiplications this program has asked libsodium for; the linker puts the counters in front of it
// (--wrap, CMakeLists.txt).

#include <stdint.h>

namespace postern::bench {

struct ScalarMultCount {
  uint64_t shared = 0;  // crypto_scalarmult
  uint64_t base = 0;    // crypto_scalarmult_base
};
ScalarMultCount scalarMultCount();

}  // namespace postern::bench
