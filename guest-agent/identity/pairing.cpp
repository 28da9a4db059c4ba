#include "guest-agent/identity/pairing.h"

#include <kj/debug.h>
#include <sodium.h>

#include "protocol/locked.h"

namespace postern::guest {

namespace {

bool knows(const GuestState& state, const Bundle& bundle) {
  KJ_IF_MAYBE (token, state.token) {
    if (token->bytes.equals(bundle.token.bytes)) return true;
  }
  KJ_IF_MAYBE (host, state.host) {
    if (*host == bundle.host) return true;
  }
  return false;
}

bool knows(const kj::Maybe<kj::Own<GuestState>>& state, const Bundle& bundle) {
  KJ_IF_MAYBE (s, state) return knows(**s, bundle);
  return false;
}

kj::String copiedText(const Vault& vault, const GuestState& state) {
  return kj::str(
      vault.name(), ": this identity (VM ", toString(state.vm),
      ") was made on another machine and is not used here; if this machine is a copy, enrol it as a VM of its "
      "own: on the host `postern enroll`, here `postern-agent join --force BUNDLE`");
}

}  // namespace

kj::Maybe<VaultError> store(Vault& vault, const GuestState& state) {
  auto bytes = encodeState(state);
  KJ_DEFER(sodium_memzero(bytes.begin(), bytes.size()));
  return vault.write(bytes);
}

Pairing::Pairing(Vault& current, Vault& successor, const Machine& machine, Random& random)
    : currentVault(current), successorVault(successor), machine(machine), random(random) {}

Pairing::~Pairing() noexcept(false) {}

kj::OneOf<kj::Own<Pairing>, VaultError> Pairing::open(Vault& current, Vault& successor, const Machine& machine,
                                                      Random& random) {
  auto pairing = kj::heap<Pairing>(current, successor, machine, random);
  KJ_IF_MAYBE (error, pairing->loadCurrent()) return kj::mv(*error);
  KJ_IF_MAYBE (error, pairing->loadSuccessor()) return kj::mv(*error);
  return kj::mv(pairing);
}

kj::Maybe<VaultError> Pairing::loadCurrent() {
  KJ_IF_MAYBE (stored, currentVault.state()) {
    auto decoded = decodeGuestState(*stored);
    if (decoded.is<IdentityError>()) {
      return VaultError{kj::str(currentVault.name(), ": ", describe(decoded.get<IdentityError>()))};
    }
    auto& state = decoded.get<kj::Own<GuestState>>();
    if (!machine.made(state->machine)) return VaultError{copiedText(currentVault, *state)};
    current = kj::mv(state);
  }
  return nullptr;
}

kj::Maybe<VaultError> Pairing::loadSuccessor() {
  KJ_IF_MAYBE (stored, successorVault.state()) {
    auto decoded = decodeGuestState(*stored);
    if (decoded.is<IdentityError>()) {
      return VaultError{kj::str(successorVault.name(), ": ", describe(decoded.get<IdentityError>()))};
    }
    auto& state = decoded.get<kj::Own<GuestState>>();
    if (!machine.made(state->machine)) return VaultError{copiedText(successorVault, *state)};
    bool isCurrent = false;
    KJ_IF_MAYBE (c, current) isCurrent = (*c)->own.publicKey() == state->own.publicKey();
    if (isCurrent) return successorVault.clear();
    successor = kj::mv(state);
  }
  return nullptr;
}

kj::Own<GuestState> Pairing::begin(Candidate candidate) {
  auto state = newLocked(GuestState());
  state->vm = candidate.vm;
  state->own = GuestKeyPair::generate(random);
  state->host = candidate.host;
  state->token = kj::mv(candidate.token);
  state->machine = machine.hash();
  return state;
}

kj::OneOf<Pairing::Told, VaultError> Pairing::consider(kj::ArrayPtr<const kj::Own<Bundle>> bundles) {
  Told told;
  candidates.clear();
  KJ_IF_MAYBE (error, dropIfReplaced(bundles)) return kj::mv(*error);
  for (auto& bundle : bundles) {
    if (knows(current, *bundle) || knows(successor, *bundle)) continue;
    KJ_IF_MAYBE (line, whyNot(*bundle)) {
      told.lines.add(kj::mv(*line));
    } else {
      candidates.push_back(Candidate{bundle->vm, bundle->host, {bundle->token.bytes.clone()}});
    }
  }
  auto taken = nextCandidate();
  if (taken.is<VaultError>()) return kj::mv(taken.get<VaultError>());
  told.news = taken.get<bool>();
  return kj::mv(told);
}

kj::OneOf<bool, VaultError> Pairing::rekey(const HostPublicKey& host, EnrolmentToken token) {
  auto& identity = *KJ_REQUIRE_NONNULL(current, "a host without an identity has no session");
  KJ_IF_MAYBE (state, successor) {
    if ((*state)->linkSecret != nullptr) return false;
  }
  candidates.clear();
  KJ_IF_MAYBE (error, dropSuccessor()) return kj::mv(*error);
  candidates.push_back(Candidate{identity.vm, host, kj::mv(token)});
  return nextCandidate();
}

// A successor that the host has not accepted yet goes with its bundle, so that a better one finds its place.
kj::Maybe<VaultError> Pairing::dropIfReplaced(kj::ArrayPtr<const kj::Own<Bundle>> bundles) {
  KJ_IF_MAYBE (state, successor) {
    if ((*state)->linkSecret != nullptr) return nullptr;
    for (auto& bundle : bundles) {
      if (knows(**state, *bundle)) return nullptr;
    }
    KJ_IF_MAYBE (error, successorVault.clear()) return kj::mv(*error);
    successor = nullptr;
    refusals = 0;
  }
  return nullptr;
}

kj::Maybe<kj::String> Pairing::whyNot(const Bundle& bundle) const {
  auto hint = tokenHint(bundle.token);
  for (auto& refused : turnedDown) {
    if (refused == hint) {
      return kj::str("the host refused the bundle for VM ", bundle.vmName, "; it is not tried again before a restart");
    }
  }
  KJ_IF_MAYBE (state, current) {
    if ((*state)->linkSecret != nullptr && !((*state)->vm == bundle.vm)) {
      return kj::str("a bundle for VM ", toString(bundle.vm), " is not taken: this guest is enrolled as VM ",
                     toString((*state)->vm), "; to enrol it as another VM, run `postern-agent join --force BUNDLE`");
    }
  }
  return nullptr;
}

// The first candidate becomes the current identity if there is none, the next one the successor.
kj::OneOf<bool, VaultError> Pairing::nextCandidate() {
  bool taken = false;
  for (auto slot : {Slot::CURRENT, Slot::SUCCESSOR}) {
    auto& place = slot == Slot::CURRENT ? current : successor;
    if (place != nullptr || candidates.empty()) continue;
    auto state = begin(kj::mv(candidates.front()));
    candidates.pop_front();
    KJ_IF_MAYBE (error, store(slot == Slot::CURRENT ? currentVault : successorVault, *state)) return kj::mv(*error);
    place = kj::mv(state);
    taken = true;
  }
  return taken;
}

bool Pairing::hasUntried() const {
  KJ_IF_MAYBE (state, successor) return (*state)->linkSecret == nullptr && refusals == 0;
  return false;
}

bool Pairing::isEnrolled() const {
  KJ_IF_MAYBE (state, current) return (*state)->isEnrolled();
  return false;
}

kj::Maybe<VmId> Pairing::vm() const {
  KJ_IF_MAYBE (state, current) return (*state)->vm;
  return nullptr;
}

kj::Vector<Pairing::Attempt> Pairing::attempts() const {
  kj::Vector<Attempt> result;
  auto add = [&](Slot slot) {
    KJ_IF_MAYBE (state, slot == Slot::CURRENT ? current : successor) {
      if ((*state)->linkSecret != nullptr) result.add(Attempt{slot, Way::SESSION});
      if ((*state)->token != nullptr) result.add(Attempt{slot, Way::ENROLMENT});
    }
  };
  bool established = false;
  KJ_IF_MAYBE (state, current) established = (*state)->linkSecret != nullptr;
  add(established ? Slot::SUCCESSOR : Slot::CURRENT);
  add(established ? Slot::CURRENT : Slot::SUCCESSOR);
  return result;
}

const GuestState& Pairing::stateOf(Slot slot) const {
  return *KJ_ASSERT_NONNULL(slot == Slot::CURRENT ? current : successor);
}
GuestState& Pairing::stateOf(Slot slot) {
  return *KJ_ASSERT_NONNULL(slot == Slot::CURRENT ? current : successor);
}

GuestCredentials Pairing::credentials(Attempt attempt) const {
  auto& state = stateOf(attempt.slot);
  if (attempt.way == Way::SESSION) return KJ_ASSERT_NONNULL(state.identity());
  return KJ_ASSERT_NONNULL(state.enrolment());
}

kj::OneOf<uint64_t, VaultError> Pairing::nextCounter(Attempt attempt) {
  auto& state = stateOf(attempt.slot);
  ++state.sessionCounter;
  KJ_IF_MAYBE (error, store(attempt.slot == Slot::CURRENT ? currentVault : successorVault, state)) {
    --state.sessionCounter;
    return kj::mv(*error);
  }
  return state.sessionCounter;
}

// T47
kj::Maybe<VaultError> Pairing::accepted(Attempt attempt, const HostPublicKey& host, LinkSecret secret) {
  auto& state = stateOf(attempt.slot);
  state.host = host;
  state.linkSecret = kj::mv(secret);
  return store(attempt.slot == Slot::CURRENT ? currentVault : successorVault, state);
}

kj::Maybe<VaultError> Pairing::committed(Attempt attempt) {
  auto& state = stateOf(attempt.slot);
  bool isNew = state.token != nullptr;
  if (isNew) {
    state.token = nullptr;
    KJ_IF_MAYBE (error, store(currentVault, state)) return kj::mv(*error);
    candidates.clear();  // what else there was to enrol with
  }
  if (attempt.slot == Slot::SUCCESSOR) current = kj::mv(KJ_ASSERT_NONNULL(successor));
  // Once the host takes the current identity, a successor that it had accepted is not what it committed.
  bool isStale = isNew;
  KJ_IF_MAYBE (s, successor) isStale = isNew || ((*s)->linkSecret != nullptr && refusals > 0);
  return isStale ? dropSuccessor() : nullptr;
}

bool Pairing::isUnsettled() const {
  KJ_IF_MAYBE (state, current) return (*state)->isEnrolled() && !(*state)->grantsAdopted;
  return false;
}

kj::Maybe<VaultError> Pairing::settled() {
  auto& state = stateOf(Slot::CURRENT);
  state.grantsAdopted = true;
  return store(currentVault, state);
}

kj::Maybe<VaultError> Pairing::refused(Attempt attempt) {
  if (attempt.slot != Slot::SUCCESSOR || attempt.way != Way::ENROLMENT) return nullptr;
  ++refusals;
  auto& state = stateOf(Slot::SUCCESSOR);
  if (state.linkSecret != nullptr || (refusals < MAX_REFUSALS && candidates.empty())) return nullptr;
  turnedDown.add(tokenHint(KJ_ASSERT_NONNULL(state.token)));
  return dropSuccessor();
}

kj::Maybe<VaultError> Pairing::dropSuccessor() {
  KJ_IF_MAYBE (error, successorVault.clear()) return kj::mv(*error);
  successor = nullptr;
  refusals = 0;
  auto taken = nextCandidate();
  if (taken.is<VaultError>()) return kj::mv(taken.get<VaultError>());
  return nullptr;
}

}  // namespace postern::guest
