#include "transport/backoff.h"

#include <doctest/doctest.h>
#include <kj/debug.h>
#include <string.h>

#include <set>

#include "protocol/limits.h"
#include "transport/random.h"

namespace postern {
namespace {

// Every draw is one number.
class FixedRandom final : public Random {
 public:
  explicit FixedRandom(uint64_t value) : value(value) {}
  void fill(kj::ArrayPtr<kj::byte> out) override {
    REQUIRE(out.size() == sizeof(value));
    memcpy(out.begin(), &value, sizeof(value));
  }
  uint64_t value;
};

TEST_CASE("the bound doubles from the first delay to the maximum and stays there") {
  FixedRandom random(0);
  Backoff backoff(200 * kj::MILLISECONDS, 2 * kj::SECONDS, random);
  for (int64_t expected : {200, 400, 800, 1600, 2000, 2000, 2000}) {
    CHECK(backoff.next() / kj::MILLISECONDS == expected);
  }
  backoff.reset();
  CHECK(backoff.next() / kj::MILLISECONDS == 200);
}

TEST_CASE("a delay lies between half the bound and the bound, whatever is drawn, and both ends are reached") {
  for (uint64_t drawn : {uint64_t(0), uint64_t(100'000'000), uint64_t(12345678901), ~uint64_t(0)}) {
    FixedRandom random(drawn);
    Backoff backoff(200 * kj::MILLISECONDS, 2 * kj::SECONDS, random);
    auto delay = backoff.next();
    CHECK((delay >= 100 * kj::MILLISECONDS));
    CHECK((delay <= 200 * kj::MILLISECONDS));
    if (drawn == 100'000'000) CHECK((delay == 100 * kj::MILLISECONDS));
  }
}

TEST_CASE("a maximum that is no multiple of the first delay, or the same, is never exceeded") {
  FixedRandom random(0);
  Backoff odd(3 * kj::SECONDS, 7 * kj::SECONDS, random);
  for (int64_t expected : {3, 6, 7, 7}) CHECK(odd.next() / kj::SECONDS == expected);
  Backoff same(1 * kj::SECONDS, 1 * kj::SECONDS, random);
  for (int i = 0; i < 100; ++i) CHECK(same.next() / kj::SECONDS == 1);
}

TEST_CASE("the two of a connecting end go up to their own maxima") {
  FixedRandom random(0);
  auto connect = newConnectBackoff(random);
  auto refused = newRefusedBackoff(random);
  for (int i = 0; i < 20; ++i) {
    (void)connect.next();
    (void)refused.next();
  }
  CHECK((connect.next() == limits::CONNECT_RETRY_MAX));
  CHECK((refused.next() == limits::REFUSED_RETRY_MAX));
}

TEST_CASE("a back-off that cannot grow is the caller's bug") {
  FixedRandom random(0);
  CHECK_THROWS_AS(Backoff(0 * kj::SECONDS, 1 * kj::SECONDS, random), kj::Exception);
  CHECK_THROWS_AS(Backoff(2 * kj::SECONDS, 1 * kj::SECONDS, random), kj::Exception);
}

TEST_CASE("the system's randomness fills the whole buffer, differently each time") {
  SystemRandom random;
  std::set<uint64_t> seen;
  kj::byte buffer[1024];
  for (int round = 0; round < 4; ++round) {
    memset(buffer, 0, sizeof(buffer));
    random.fill(buffer);
    for (size_t i = 0; i < sizeof(buffer); i += 8) {
      uint64_t word;
      memcpy(&word, buffer + i, 8);
      CHECK(seen.insert(word).second);
    }
  }
  random.fill(nullptr);
}

}  // namespace
}  // namespace postern
