#pragma once
// Random bytes for tests: the same ones in every run.

#include <stdint.h>

#include "protocol/random.h"

namespace postern::test {

class TestRandom final : public Random {
 public:
  explicit TestRandom(uint64_t seed = 1) : state(seed * 0x9e3779b97f4a7c15u + 1) {}

  void fill(kj::ArrayPtr<kj::byte> out) override {
    for (auto& b : out) b = static_cast<kj::byte>(next() >> 56);
  }
  uint64_t next() {  // xorshift64*, enough to look random
    state ^= state >> 12;
    state ^= state << 25;
    state ^= state >> 27;
    return state * 0x2545f4914f6cdd1du;
  }

 private:
  uint64_t state;
};

}  // namespace postern::test
