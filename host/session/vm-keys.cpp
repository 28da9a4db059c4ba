#include "host/session/vm-keys.h"

#include <kj/debug.h>
#include <sodium.h>

#include "protocol/locked.h"

namespace postern::host {

namespace {

HostIdentity copyOf(const HostIdentity& identity) {
  return {identity.vm, {identity.own.pair.clone()}, identity.guest, {identity.linkSecret.bytes.clone()}};
}

}  // namespace

kj::OneOf<kj::Own<VmKeys>, kj::StringPtr> VmKeys::open(StateFile file, const VmId& vm, Clocks clocks, Random& random) {
  auto state = newLocked(HostState());
  state->vm = vm;
  KJ_IF_MAYBE (stored, file.state()) {
    auto decoded = decodeHostState(*stored);
    if (decoded.is<IdentityError>()) return describe(decoded.get<IdentityError>());
    state = kj::mv(decoded.get<kj::Own<HostState>>());
    if (!(state->vm == vm)) return "belongs to a VM with another uuid; restore the right file, or enrol again"_kj;
  }
  return kj::heap<VmKeys>(kj::mv(file), vm, kj::mv(state), clocks, random);
}

VmKeys::VmKeys(StateFile file, const VmId& vm, kj::Own<HostState> state, Clocks clocks, Random& random)
    : file(kj::mv(file)), vm(vm), state(kj::mv(state)), clocks(clocks), random(random), lent(lend()) {}

uint64_t VmKeys::wallSeconds() const {
  auto since = clocks.wall.now() - kj::UNIX_EPOCH;
  return since < 0 * kj::SECONDS ? 0 : uint64_t(since / kj::SECONDS);
}

bool VmKeys::isOfferOut() const {
  KJ_IF_MAYBE (offer, state->offer) {
    KJ_IF_MAYBE (ends, offerEnds) {
      if (clocks.monotonic.now() >= *ends) return false;
    }
    auto now = wallSeconds();
    return now + CLOCK_CORRECTION_SECONDS >= offer->issuedAt && now < offer->issuedAt + offer->lifetimeSeconds;
  }
  return false;
}

bool VmKeys::isInherited() const {
  KJ_IF_MAYBE (pair, state->current) return pair->inherited;
  return false;
}

bool VmKeys::wantsRekeying() const {
  if (!isInherited()) return false;
  KJ_IF_MAYBE (offer, state->offer) return !isOfferOut() || offer->lifetimeSeconds <= REKEY_TOKEN_SECONDS;
  return true;
}

kj::String VmKeys::hostFingerprint() const {
  KJ_IF_MAYBE (pair, state->current) return fingerprint(pair->identity.own.publicKey());
  KJ_IF_MAYBE (offer, state->offer) return fingerprint(offer->own.publicKey());
  return kj::String();
}

kj::String VmKeys::guestFingerprint() const {
  KJ_IF_MAYBE (pair, state->current) return fingerprint(pair->identity.guest);
  return kj::String();
}

kj::OneOf<VmKeys::Issued, StateFileError> VmKeys::issue(uint32_t lifetimeSeconds) {
  auto previous = kj::mv(state->offer);
  HostOffer offer;
  offer.own = HostKeyPair::generate(random);
  offer.token = EnrolmentToken::generate(random);
  offer.issuedAt = wallSeconds();
  offer.lifetimeSeconds = lifetimeSeconds;
  Issued issued{offer.own.publicKey(), {offer.token.bytes.clone()}};
  state->offer = kj::mv(offer);
  KJ_IF_MAYBE (error, save()) {
    state->offer = kj::mv(previous);
    return *error;
  }
  ++offers;
  lendAnew();
  offerEnds = clocks.monotonic.now() + lifetimeSeconds * kj::SECONDS;
  return kj::mv(issued);
}

// T43
kj::OneOf<LinkSecret, StateFileError> VmKeys::bind(const GuestPublicKey& guest) {
  auto& offer = KJ_REQUIRE_NONNULL(state->offer);
  KJ_IF_MAYBE (secret, offer.linkSecret) {
    KJ_REQUIRE(KJ_ASSERT_NONNULL(offer.guest) == guest, "the handshake let another key through");
    return LinkSecret{secret->bytes.clone()};
  }
  offer.guest = guest;
  offer.linkSecret = LinkSecret::generate(random);
  KJ_IF_MAYBE (error, save()) {
    offer.guest = nullptr;
    offer.linkSecret = nullptr;
    return *error;
  }
  lendAnew();
  return LinkSecret{KJ_ASSERT_NONNULL(offer.linkSecret).bytes.clone()};
}

bool VmKeys::isPending(const GuestPublicKey& guest) const {
  KJ_IF_MAYBE (offer, state->offer) {
    KJ_IF_MAYBE (bound, offer->guest) return *bound == guest;
  }
  return false;
}

kj::Maybe<StateFileError> VmKeys::commit(const GuestPublicKey& guest) {
  if (!isPending(guest)) return nullptr;
  auto previous = kj::mv(state->current);
  auto& offer = KJ_ASSERT_NONNULL(state->offer);
  HostPair pair;
  pair.identity = {vm, {offer.own.pair.clone()}, guest, {KJ_ASSERT_NONNULL(offer.linkSecret).bytes.clone()}};
  state->current = kj::mv(pair);
  auto burned = kj::mv(state->offer);
  state->offer = nullptr;
  KJ_IF_MAYBE (error, save()) {
    state->current = kj::mv(previous);
    state->offer = kj::mv(burned);
    return *error;
  }
  ++offers;
  lendAnew();
  offerEnds = nullptr;
  return nullptr;
}

// T45
kj::OneOf<VmKeys::Counter, StateFileError> VmKeys::count(uint64_t sessionCounter) {
  auto& pair = KJ_REQUIRE_NONNULL(state->current);
  if (sessionCounter <= pair.sessionCounter) return Counter::BACK;
  auto before = pair.sessionCounter;
  pair.sessionCounter = sessionCounter;
  KJ_IF_MAYBE (error, save()) {
    pair.sessionCounter = before;
    return *error;
  }
  return Counter::FORWARD;
}

kj::Maybe<StateFileError> VmKeys::save() {
  auto bytes = encodeState(*state);
  KJ_DEFER(sodium_memzero(bytes.begin(), bytes.size()));
  return file.write(bytes);
}

// What handshakes under way have borrowed stays until they are over.
void VmKeys::lendAnew() {
  replaced.add(kj::mv(lent));
  lent = lend();
}

kj::Own<VmKeys::Lent> VmKeys::lend() const {
  auto result = newLocked(Lent());
  KJ_IF_MAYBE (pair, state->current) result->current = copyOf(pair->identity);
  KJ_IF_MAYBE (offer, state->offer) {
    result->enrolment = HostEnrolment{vm, {offer->own.pair.clone()}, offer->guest, {offer->token.bytes.clone()}};
    KJ_IF_MAYBE (guest, offer->guest) {
      auto& secret = KJ_ASSERT_NONNULL(offer->linkSecret);
      result->pending = HostIdentity{vm, {offer->own.pair.clone()}, *guest, {secret.bytes.clone()}};
    }
  }
  return result;
}

kj::Maybe<const HostIdentity&> VmKeys::identityFor(const Hint& hint) {
  for (auto* candidate : {&lent->current, &lent->pending}) {
    KJ_IF_MAYBE (identity, *candidate) {
      if (keyHint(identity->own.publicKey(), identity->guest) == hint) return *identity;
    }
  }
  return nullptr;
}

kj::Maybe<const HostEnrolment&> VmKeys::enrolmentFor(const Hint& hint) {
  KJ_IF_MAYBE (enrolment, lent->enrolment) {
    if (isOfferOut() && tokenHint(enrolment->token) == hint) return *enrolment;
  }
  return nullptr;
}

}  // namespace postern::host
