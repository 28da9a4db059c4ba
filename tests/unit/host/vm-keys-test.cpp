#include "host/session/vm-keys.h"

#include "tests/unit/host/hub-fixture.h"

namespace postern::host {
namespace {

using test::DiskFull;
using test::KeyFile;

struct Guest {
  GuestKeyPair own;
  GuestPublicKey key() const { return own.publicKey(); }
};

VmKeys::Issued issue(VmKeys& keys, uint32_t seconds = 900) {
  auto issued = keys.issue(seconds);
  return kj::mv(issued.get<VmKeys::Issued>());
}
LinkSecret bind(VmKeys& keys, const GuestPublicKey& guest) {
  auto bound = keys.bind(guest);
  return kj::mv(bound.get<LinkSecret>());
}
bool knows(VmKeys& keys, const HostPublicKey& host, const GuestPublicKey& guest) {
  return keys.identityFor(keyHint(host, guest)) != nullptr;
}
bool takes(VmKeys& keys, const EnrolmentToken& token) {
  return keys.enrolmentFor(tokenHint(token)) != nullptr;
}

TEST_CASE("a new VM has no keys, no offer and no fingerprints") {
  KeyFile file;
  auto keys = file.open();
  CHECK_FALSE(keys->isEnrolled());
  CHECK_FALSE(keys->isOfferOut());
  CHECK(keys->hostFingerprint().size() == 0);
  CHECK(keys->guestFingerprint().size() == 0);
}

TEST_CASE("every step of an enrolment is on the disk when it is taken") {
  KeyFile file;
  Guest guest{GuestKeyPair::generate(file.random)};
  auto issued = issue(*file.open());
  {
    auto keys = file.open();
    CHECK(keys->isOfferOut());
    CHECK(takes(*keys, issued.token));
    CHECK_FALSE(keys->isPending(guest.key()));
    CHECK_FALSE(knows(*keys, issued.host, guest.key()));
  }
  auto secret = bind(*file.open(), guest.key());
  {
    auto keys = file.open();
    CHECK(keys->isPending(guest.key()));
    CHECK(takes(*keys, issued.token));
    REQUIRE(knows(*keys, issued.host, guest.key()));
    auto& pending = KJ_REQUIRE_NONNULL(keys->identityFor(keyHint(issued.host, guest.key())));
    CHECK(pending.linkSecret.bytes.equals(secret.bytes));
    CHECK(bind(*keys, guest.key()).bytes.equals(secret.bytes));  // the same guest comes again
    CHECK_FALSE(keys->isEnrolled());
  }
  CHECK((file.open()->commit(guest.key()) == nullptr));
  auto keys = file.open();
  CHECK(keys->isEnrolled());
  CHECK_FALSE(keys->isOfferOut());
  CHECK_FALSE(takes(*keys, issued.token));
  REQUIRE(knows(*keys, issued.host, guest.key()));
  auto& current = KJ_REQUIRE_NONNULL(keys->identityFor(keyHint(issued.host, guest.key())));
  CHECK(current.linkSecret.bytes.equals(secret.bytes));
  CHECK((keys->hostFingerprint() == fingerprint(issued.host)));
  CHECK((keys->guestFingerprint() == fingerprint(guest.key())));
  CHECK((keys->commit(guest.key()) == nullptr));  // again: nothing happens
}

TEST_CASE("a token is one key's: the handshake is given the key that it is bound to") {
  KeyFile file;
  auto keys = file.open();
  Guest guest{GuestKeyPair::generate(file.random)};
  auto issued = issue(*keys);
  CHECK((KJ_REQUIRE_NONNULL(keys->enrolmentFor(tokenHint(issued.token))).guest == nullptr));
  bind(*keys, guest.key());
  auto& enrolment = KJ_REQUIRE_NONNULL(keys->enrolmentFor(tokenHint(issued.token)));
  CHECK((KJ_REQUIRE_NONNULL(enrolment.guest) == guest.key()));
  Guest other{GuestKeyPair::generate(file.random)};
  CHECK_THROWS(keys->bind(other.key()));
  CHECK_FALSE(keys->isPending(other.key()));
}

TEST_CASE("a full disk changes nothing, in memory or in the file") {
  KeyFile file;
  auto keys = file.open();
  Guest guest{GuestKeyPair::generate(file.random)};
  auto issued = issue(*keys);
  auto number = keys->offerNumber();
  {
    DiskFull full;
    CHECK(keys->issue(900).is<StateFileError>());
    CHECK(keys->bind(guest.key()).is<StateFileError>());
  }
  CHECK(keys->offerNumber() == number);
  CHECK(takes(*keys, issued.token));
  CHECK_FALSE(keys->isPending(guest.key()));
  auto secret = bind(*keys, guest.key());
  {
    DiskFull full;
    CHECK((keys->commit(guest.key()) != nullptr));
  }
  CHECK_FALSE(keys->isEnrolled());
  CHECK(keys->isPending(guest.key()));
  CHECK_FALSE(file.open()->isEnrolled());
  CHECK((keys->commit(guest.key()) == nullptr));
  {
    DiskFull full;
    CHECK(keys->count(5).is<StateFileError>());
  }
  CHECK((keys->count(5).get<VmKeys::Counter>() == VmKeys::Counter::FORWARD));  // the failed one was not counted
  CHECK((file.open()->count(5).get<VmKeys::Counter>() == VmKeys::Counter::BACK));
}

TEST_CASE("a token's lifetime is over by either clock, and when the wall clock was set back") {
  KeyFile file;
  auto keys = file.open();
  auto issued = issue(*keys, 900);
  SUBCASE("time passes") {
    file.pass(899);
    CHECK(takes(*keys, issued.token));
    file.pass(1);
    CHECK_FALSE(takes(*keys, issued.token));
    CHECK_FALSE(keys->isOfferOut());
  }
  SUBCASE("the wall clock is held while time passes") {
    file.monotonic.time += 900 * kj::SECONDS;
    CHECK_FALSE(takes(*keys, issued.token));
  }
  SUBCASE("the wall clock is set forward") {
    file.wall.seconds += 901;
    CHECK_FALSE(takes(*keys, issued.token));
  }
  SUBCASE("the wall clock is corrected a little") {
    file.wall.seconds -= int64_t(CLOCK_CORRECTION_SECONDS);
    CHECK(takes(*keys, issued.token));
    CHECK(takes(*file.open(), issued.token));
  }
  SUBCASE("the wall clock is set back") {
    file.wall.seconds -= 3600;
    CHECK_FALSE(takes(*keys, issued.token));
    CHECK_FALSE(takes(*file.open(), issued.token));
  }
  SUBCASE("the wall clock is before 1970") {
    file.wall.seconds = -5;
    CHECK_FALSE(takes(*keys, issued.token));
  }
}

TEST_CASE("a guest that has its secret commits after the token's lifetime, too") {
  KeyFile file;
  auto keys = file.open();
  Guest guest{GuestKeyPair::generate(file.random)};
  auto issued = issue(*keys, 60);
  bind(*keys, guest.key());
  file.pass(3600);
  CHECK_FALSE(takes(*keys, issued.token));
  CHECK(knows(*keys, issued.host, guest.key()));
  CHECK((keys->commit(guest.key()) == nullptr));
  CHECK(keys->isEnrolled());
}

TEST_CASE("a new offer keeps the current pair until it is used, and voids the offer before it") {
  KeyFile file;
  auto keys = file.open();
  Guest old{GuestKeyPair::generate(file.random)}, young{GuestKeyPair::generate(file.random)};
  auto first = issue(*keys);
  bind(*keys, old.key());
  CHECK((keys->commit(old.key()) == nullptr));
  auto unused = issue(*keys);
  auto second = issue(*keys);
  CHECK_FALSE(takes(*keys, unused.token));
  CHECK(takes(*keys, second.token));
  CHECK(knows(*keys, first.host, old.key()));
  bind(*keys, young.key());
  CHECK(knows(*keys, first.host, old.key()));
  CHECK(knows(*keys, second.host, young.key()));
  CHECK((keys->commit(young.key()) == nullptr));
  CHECK_FALSE(knows(*keys, first.host, old.key()));
  CHECK_FALSE(knows(*file.open(), first.host, old.key()));
  // Its counter begins anew.
  CHECK((keys->count(1).get<VmKeys::Counter>() == VmKeys::Counter::FORWARD));
}

TEST_CASE("keys that a handshake has borrowed outlive their replacement") {
  KeyFile file;
  auto keys = file.open();
  auto issued = issue(*keys);
  auto& borrowed = KJ_REQUIRE_NONNULL(keys->enrolmentFor(tokenHint(issued.token)));
  auto number = keys->offerNumber();
  (void)issue(*keys);
  CHECK(keys->offerNumber() != number);
  CHECK(borrowed.token.bytes.equals(issued.token.bytes));
  keys->forgetReplaced();
  CHECK_FALSE(takes(*keys, issued.token));
}

TEST_CASE("a counter is back when it is not above every earlier one") {
  KeyFile file;
  auto keys = file.open();
  Guest guest{GuestKeyPair::generate(file.random)};
  (void)issue(*keys);
  bind(*keys, guest.key());
  CHECK((keys->commit(guest.key()) == nullptr));
  auto count = [&](uint64_t n) { return keys->count(n).get<VmKeys::Counter>(); };
  CHECK((count(7) == VmKeys::Counter::FORWARD));
  CHECK((count(7) == VmKeys::Counter::BACK));
  CHECK((count(6) == VmKeys::Counter::BACK));
  CHECK((count(UINT64_MAX) == VmKeys::Counter::FORWARD));
  CHECK((count(0) == VmKeys::Counter::BACK));
}

TEST_CASE("another VM's file, and one that holds something else, are refused with a line that says so") {
  KeyFile file;
  (void)issue(*file.open());
  VmId other = file.vm;
  other.bytes[0] ^= 1;
  auto refused = file.tryOpen(other);
  REQUIRE(refused.is<kj::StringPtr>());
  CHECK((KJ_REQUIRE_NONNULL(refused.get<kj::StringPtr>().findFirst('u')) < 200));
  {
    kj::AutoCloseFd fd(open(file.path().cStr(), O_RDWR | O_TRUNC | O_CLOEXEC));
    KJ_SYSCALL(::write(fd, "no keys at all", 14));
  }
  CHECK(file.tryOpen(file.vm).is<kj::StringPtr>());
}

}  // namespace
}  // namespace postern::host
