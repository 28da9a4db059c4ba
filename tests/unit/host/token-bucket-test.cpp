#include "host/session/token-bucket.h"

#include <doctest/doctest.h>

namespace postern::host {
namespace {

constexpr auto S = kj::SECONDS;
constexpr auto MS = kj::MILLISECONDS;

kj::TimePoint at(int64_t milliseconds) {
  return kj::origin<kj::TimePoint>() + milliseconds * MS;
}
kj::Duration take(TokenBucket& bucket, uint64_t amount, kj::TimePoint now) {
  return bucket.waitFor(bucket.take(amount, now), now);
}

TEST_CASE("a bucket gives its burst at once, and then its rate") {
  TokenBucket bucket(1000, 500);
  CHECK((take(bucket, 500, at(0)) == 0 * S));
  CHECK((take(bucket, 100, at(0)) == 100 * MS));
  CHECK((take(bucket, 100, at(100)) == 100 * MS));
  CHECK((take(bucket, 100, at(10'000)) == 0 * S));
  CHECK((take(bucket, 400, at(10'000)) == 0 * S));
  CHECK((take(bucket, 1, at(10'000)) == 1 * MS));
}

TEST_CASE("a piece that is larger than the burst waits, and those behind it wait longer") {
  TokenBucket bucket(1000, 10);
  CHECK((take(bucket, 1000, at(0)) == 990 * MS));
  CHECK((take(bucket, 1000, at(0)) == 1990 * MS));
  CHECK((take(bucket, 0, at(3000)) == 0 * S));
}

TEST_CASE("in the long run no more passes than the rate, however it is taken, to a part in ten thousand") {
  for (uint64_t rate : {uint64_t(1000), uint64_t(3'333'333), uint64_t(1) << 31}) {
    TokenBucket bucket(rate, 60 << 10);
    auto now = at(0);
    uint64_t taken = 0;
    for (int i = 0; i < 20'000; ++i) {
      uint64_t piece = 1 + (uint64_t(i) * 7919) % (60 << 10);
      now += take(bucket, piece, now);
      taken += piece;
    }
    auto seconds = static_cast<double>((now - at(0)) / kj::NANOSECONDS) / 1e9;
    auto most = static_cast<double>(rate) * seconds + (60 << 10);
    CHECK(static_cast<double>(taken) <= most * 1.0001);
    CHECK(static_cast<double>(taken) >= most * 0.9999 - (60 << 10));
  }
}

TEST_CASE("a bucket that is looked at often counts as one that is not") {
  TokenBucket often(7, 7);
  (void)often.take(7, at(0));
  auto turn = often.take(70, at(0));
  for (int i = 1; i < 10'000; ++i) CHECK((often.waitFor(turn, at(i)) > 0 * S));
  CHECK((often.waitFor(turn, at(10'000)) <= 1 * MS));
}

TEST_CASE("numbers out of all proportion make no bucket wrong: it waits long, or not at all") {
  for (uint64_t rate : {uint64_t(1), UINT64_MAX}) {
    for (uint64_t burst : {uint64_t(0), UINT64_MAX}) {
      TokenBucket bucket(rate, burst);
      for (uint64_t piece : {uint64_t(0), uint64_t(1), UINT64_MAX, UINT64_MAX}) {
        CHECK((take(bucket, piece, at(0)) >= 0 * S));
      }
      bucket.set(1000, 1, at(1));
      bucket.set(UINT64_MAX, UINT64_MAX, at(2));
      CHECK((take(bucket, 1, at(1'000'000)) >= 0 * S));
    }
  }
  TokenBucket none;
  CHECK((take(none, UINT64_MAX, at(0)) == 0 * S));
  CHECK(none.tryTake(UINT64_MAX, at(0)));
}

TEST_CASE("what is only tried costs nothing when it is not had") {
  TokenBucket bucket(10, 2);
  CHECK(bucket.tryTake(1, at(0)));
  CHECK(bucket.tryTake(1, at(0)));
  for (int i = 0; i < 100; ++i) CHECK_FALSE(bucket.tryTake(1, at(0)));
  CHECK(bucket.tryTake(1, at(100)));
  CHECK_FALSE(bucket.tryTake(1, at(100)));
}

TEST_CASE("another rate counts at once, for turns that are still to come too") {
  TokenBucket bucket(1, 0);
  auto turn = bucket.take(1000, at(0));
  CHECK((bucket.waitFor(turn, at(0)) == 1000 * S));
  bucket.set(1000, 0, at(0));
  CHECK((bucket.waitFor(turn, at(0)) == 1 * S));
  bucket.set(10, 0, at(500));
  CHECK((bucket.waitFor(turn, at(500)) == 50 * S));
  // A larger burst is there at once, too; and no bound at all.
  bucket.set(10, 250, at(500));
  CHECK((bucket.waitFor(turn, at(500)) == 25 * S));
  bucket.set(0, 0, at(500));
  CHECK((bucket.waitFor(turn, at(500)) == 0 * S));
  // What begins to be bounded begins full.
  bucket.set(10, 100, at(500));
  CHECK((take(bucket, 100, at(500)) == 0 * S));
  CHECK((take(bucket, 1, at(500)) == 100 * MS));
}

TEST_CASE("numbers that are said again give no burst again") {
  TokenBucket bucket(10, 100);
  CHECK((take(bucket, 100, at(0)) == 0 * S));
  for (int i = 0; i < 10; ++i) {
    bucket.set(10, 50, at(0));
    bucket.set(10, 100, at(0));
  }
  CHECK((take(bucket, 10, at(0)) >= 1 * S));
}

}  // namespace
}  // namespace postern::host
