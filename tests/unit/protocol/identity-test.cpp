#include "protocol/identity.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <doctest/doctest.h>

#include "protocol/identity.capnp.h"
#include "protocol/state-file.h"
#include "tests/support/test-random.h"

namespace postern {
namespace {

struct Lab {
  test::TestRandom random;
  GuestKeyPair guestKeys = GuestKeyPair::generate(random);
  HostKeyPair hostKeys = HostKeyPair::generate(random);
  LinkSecret secret = LinkSecret::generate(random);
  EnrolmentToken token = EnrolmentToken::generate(random);
  VmId vm;
  Lab() { random.fill(kj::arrayPtr(vm.bytes.data(), vm.bytes.size())); }

  GuestState guest() {
    GuestState state;
    state.vm = vm;
    state.own = {guestKeys.pair.clone()};
    state.sessionCounter = 18;
    state.machine[3] = 7;
    return state;
  }
  HostState host() {
    HostState state;
    state.vm = vm;
    HostPair pair;
    pair.identity = {vm, {hostKeys.pair.clone()}, guestKeys.publicKey(), {secret.bytes.clone()}};
    pair.sessionCounter = 17;
    state.current = kj::mv(pair);
    return state;
  }
  HostOffer offer() {
    HostOffer offer;
    offer.own = {hostKeys.pair.clone()};
    offer.token = {token.bytes.clone()};
    offer.issuedAt = 1'700'000'000;
    offer.lifetimeSeconds = 900;
    return offer;
  }
};

kj::Own<GuestState> guestAgain(const GuestState& state) {
  auto result = decodeGuestState(encodeState(state));
  REQUIRE(result.is<kj::Own<GuestState>>());
  return kj::mv(result.get<kj::Own<GuestState>>());
}
kj::Own<HostState> hostAgain(const HostState& state) {
  auto bytes = encodeState(state);
  REQUIRE(bytes.size() <= StateFile::MAX_STATE_BYTES);
  auto result = decodeHostState(bytes);
  REQUIRE(result.is<kj::Own<HostState>>());
  return kj::mv(result.get<kj::Own<HostState>>());
}

TEST_CASE("a guest's state survives the way to the disk in each phase of its enrolment") {
  Lab lab;
  auto state = lab.guest();
  state.token = EnrolmentToken{lab.token.bytes.clone()};
  auto keyed = guestAgain(state);
  CHECK_FALSE(keyed->isEnrolled());
  CHECK(keyed->identity() == nullptr);
  auto enrolment = KJ_ASSERT_NONNULL(keyed->enrolment());
  CHECK(enrolment.own.publicKey() == lab.guestKeys.publicKey());
  CHECK(enrolment.host == nullptr);
  CHECK(enrolment.token.bytes.equals(lab.token.bytes));

  state.host = lab.hostKeys.publicKey();
  state.linkSecret = LinkSecret{lab.secret.bytes.clone()};
  auto pending = guestAgain(state);
  CHECK_FALSE(pending->isEnrolled());
  CHECK(pending->enrolment() != nullptr);
  CHECK(KJ_ASSERT_NONNULL(pending->identity()).linkSecret.bytes.equals(lab.secret.bytes));

  state.token = nullptr;
  state.grantsAdopted = true;
  auto active = guestAgain(state);
  CHECK(active->isEnrolled());
  CHECK(active->enrolment() == nullptr);
  CHECK(active->sessionCounter == 18);
  CHECK(active->grantsAdopted);
  CHECK(active->machine == state.machine);
  CHECK((active->vm == lab.vm));
  CHECK(KJ_ASSERT_NONNULL(active->host) == lab.hostKeys.publicKey());
}

TEST_CASE("a host's state survives the way to the disk with a pair, an offer, both and neither") {
  Lab lab;
  HostState empty;
  empty.vm = lab.vm;
  auto none = hostAgain(empty);
  CHECK(none->current == nullptr);
  CHECK(none->offer == nullptr);

  auto state = lab.host();
  auto offer = lab.offer();
  offer.guest = lab.guestKeys.publicKey();
  offer.linkSecret = LinkSecret{lab.secret.bytes.clone()};
  state.offer = kj::mv(offer);
  auto both = hostAgain(state);
  auto& pair = KJ_ASSERT_NONNULL(both->current);
  CHECK(pair.sessionCounter == 17);
  CHECK((pair.identity.vm == lab.vm));
  CHECK(pair.identity.own.publicKey() == lab.hostKeys.publicKey());
  CHECK(pair.identity.guest == lab.guestKeys.publicKey());
  CHECK(pair.identity.linkSecret.bytes.equals(lab.secret.bytes));
  auto& bound = KJ_ASSERT_NONNULL(both->offer);
  CHECK(bound.lifetimeSeconds == 900);
  CHECK(bound.issuedAt == 1'700'000'000);
  CHECK(KJ_ASSERT_NONNULL(bound.guest) == lab.guestKeys.publicKey());

  HostState fresh;
  fresh.vm = lab.vm;
  fresh.offer = lab.offer();
  auto unbound = hostAgain(fresh);
  CHECK(KJ_ASSERT_NONNULL(unbound->offer).guest == nullptr);
  CHECK(KJ_ASSERT_NONNULL(unbound->offer).token.bytes.equals(lab.token.bytes));
}

TEST_CASE("a truncated state is no state") {
  Lab lab;
  auto state = lab.guest();
  state.token = EnrolmentToken{lab.token.bytes.clone()};
  auto guest = encodeState(state);
  for (size_t size = 0; size < guest.size(); ++size) {
    CHECK(decodeGuestState(guest.slice(0, size)).is<IdentityError>());
  }
  auto host = encodeState(lab.host());
  for (size_t size = 0; size < host.size(); ++size) {
    CHECK(decodeHostState(host.slice(0, size)).is<IdentityError>());
  }
}

template <typename Struct, typename Fill>
kj::Array<kj::byte> stored(Fill&& fill) {
  capnp::MallocMessageBuilder message;
  fill(message.initRoot<Struct>());
  return kj::heapArray<kj::byte>(capnp::messageToFlatArray(message).asBytes());
}

TEST_CASE("a state whose parts do not belong together is refused, and so is one of a later format") {
  kj::byte key[32] = {1}, zeros[32] = {}, vm[16] = {2};
  auto guest = [&](auto change) {
    auto bytes = stored<schema::GuestState>([&](schema::GuestState::Builder out) {
      out.setFormat(1);
      out.setVm(kj::ArrayPtr<kj::byte>(vm));
      out.setOwnSecretKey(kj::ArrayPtr<kj::byte>(key));
      out.setToken(kj::ArrayPtr<kj::byte>(key));
      out.setMachine(kj::ArrayPtr<kj::byte>(zeros));
      change(out);
    });
    return decodeGuestState(bytes);
  };
  CHECK(guest([](auto) {}).template is<kj::Own<GuestState>>());
  CHECK(guest([](auto out) { out.setFormat(2); }).template get<IdentityError>() == IdentityError::NEWER_FORMAT);
  CHECK(guest([](auto out) { out.setFormat(0); }).template get<IdentityError>() == IdentityError::MALFORMED);
  CHECK(guest([](auto out) { out.initToken(0); }).template is<IdentityError>());   // neither
  CHECK(guest([](auto out) { out.initToken(31); }).template is<IdentityError>());  // too short
  CHECK(guest([&](auto out) { out.setOwnSecretKey(kj::ArrayPtr<kj::byte>(zeros)); }).template is<IdentityError>());
  CHECK(guest([&](auto out) {
          out.setLinkSecret(kj::ArrayPtr<kj::byte>(key));
        }).template is<IdentityError>());  // of no host
  CHECK(guest([](auto out) { out.initHostPublicKey(5); }).template is<IdentityError>());
  CHECK(guest([](auto out) { out.initMachine(31); }).template is<IdentityError>());

  auto host = [&](auto change) {
    auto bytes = stored<schema::HostState>([&](schema::HostState::Builder out) {
      out.setFormat(1);
      out.setVm(kj::ArrayPtr<kj::byte>(vm));
      auto offer = out.initOffer();
      offer.setOwnSecretKey(kj::ArrayPtr<kj::byte>(key));
      offer.setToken(kj::ArrayPtr<kj::byte>(key));
      change(out, offer);
    });
    return decodeHostState(bytes);
  };
  CHECK(host([](auto, auto) {}).template is<kj::Own<HostState>>());
  CHECK(host([](auto out, auto) { out.initVm(15); }).template is<IdentityError>());
  CHECK(host([](auto out, auto) { out.initCurrent(); }).template is<IdentityError>());
  CHECK(host([&](auto, auto offer) {
          offer.setGuestPublicKey(kj::ArrayPtr<kj::byte>(key));
        }).template is<IdentityError>());
  CHECK(host([&](auto, auto offer) { offer.setLinkSecret(kj::ArrayPtr<kj::byte>(key)); }).template is<IdentityError>());
  CHECK(host([](auto, auto offer) { offer.initToken(0); }).template is<IdentityError>());
}

}  // namespace
}  // namespace postern
