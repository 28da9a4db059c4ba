#include "protocol/identity.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/debug.h>
#include <sodium.h>
#include <string.h>

#include "protocol/identity.capnp.h"
#include "protocol/locked.h"
#include "protocol/state-file.h"

namespace postern {

namespace {

constexpr uint16_t FORMAT = 1;
constexpr size_t MAX_WORDS = StateFile::MAX_STATE_BYTES / sizeof(capnp::word);

// Room for one message whose bytes are keys.
struct SecretWords {
  capnp::word words[MAX_WORDS];
  SecretWords() { memset(static_cast<void*>(words), 0, sizeof(words)); }
  ~SecretWords() { sodium_memzero(words, sizeof(words)); }
  KJ_DISALLOW_COPY(SecretWords);
};

template <size_t N>
capnp::Data::Reader data(const std::array<kj::byte, N>& bytes) {
  return kj::arrayPtr(bytes.data(), bytes.size());
}

// Of the right length and not zero, which no key is.
kj::Maybe<Secret<32>> secretFrom(capnp::Data::Reader stored) {
  if (stored.size() != 32) return nullptr;
  Secret<32> secret(stored);
  if (secret.isZero()) return nullptr;
  return kj::mv(secret);
}

template <size_t N>
bool copyTo(capnp::Data::Reader stored, std::array<kj::byte, N>& out) {
  if (stored.size() != N) return false;
  memcpy(out.data(), stored.begin(), N);
  return true;
}

template <typename T>
kj::Maybe<T> secretOrNull(capnp::Data::Reader stored) {
  KJ_IF_MAYBE (secret, secretFrom(stored)) {
    T result;
    result.bytes = kj::mv(*secret);
    return kj::mv(result);
  }
  return nullptr;
}

// Serialises what `fill` sets into a root of type Struct.
template <typename Struct, typename Fill>
kj::Array<kj::byte> encode(const VmId& vm, Fill&& fill) {
  SecretWords space;
  capnp::MallocMessageBuilder message(kj::arrayPtr(space.words, MAX_WORDS));
  auto out = message.initRoot<Struct>();
  out.setFormat(FORMAT);
  out.setVm(data(vm.bytes));
  fill(out);
  auto words = capnp::messageToFlatArray(message);
  KJ_DEFER(sodium_memzero(words.begin(), words.asBytes().size()));
  return kj::heapArray<kj::byte>(words.asBytes());
}

// Gives a root of type Struct and the right format to `take`, which says whether it made sense of it.
template <typename Struct, typename State, typename Take>
kj::OneOf<kj::Own<State>, IdentityError> decode(kj::ArrayPtr<const kj::byte> stored, Take&& take) {
  if (stored.size() > sizeof(SecretWords::words) || stored.size() % sizeof(capnp::word) != 0) {
    return IdentityError::MALFORMED;
  }
  SecretWords space;
  if (stored.size() > 0) memcpy(static_cast<void*>(space.words), stored.begin(), stored.size());
  auto words = kj::arrayPtr(space.words, stored.size() / sizeof(capnp::word));
  auto state = newLocked(State());
  auto error = IdentityError::MALFORMED;
  bool good = false;
  auto broken = kj::runCatchingExceptions([&]() {
    capnp::FlatArrayMessageReader reader(words);
    auto in = reader.getRoot<Struct>();
    if (in.getFormat() > FORMAT) error = IdentityError::NEWER_FORMAT;
    good = in.getFormat() == FORMAT && copyTo(in.getVm(), state->vm.bytes) && take(in, *state);
  });
  if (broken != nullptr || !good) return error;
  return kj::mv(state);
}

bool take(schema::GuestState::Reader in, GuestState& state) {
  KJ_IF_MAYBE (own, secretFrom(in.getOwnSecretKey())) {
    state.own.pair = noise::KeyPair::from(kj::mv(*own));
  } else {
    return false;
  }
  HostPublicKey host;
  if (copyTo(in.getHostPublicKey(), host.bytes)) {
    state.host = host;
  } else if (in.getHostPublicKey().size() != 0) {
    return false;
  }
  state.linkSecret = secretOrNull<LinkSecret>(in.getLinkSecret());
  state.token = secretOrNull<EnrolmentToken>(in.getToken());
  state.sessionCounter = in.getSessionCounter();
  state.grantsAdopted = in.getGrantsAdopted();
  return (in.getLinkSecret().size() == 0) == (state.linkSecret == nullptr) &&
         (in.getToken().size() == 0) == (state.token == nullptr) && copyTo(in.getMachine(), state.machine) &&
         (state.linkSecret != nullptr ? state.host != nullptr : state.token != nullptr);
}

bool take(schema::HostState::Pair::Reader in, const VmId& vm, HostPair& pair) {
  KJ_IF_MAYBE (own, secretFrom(in.getOwnSecretKey())) {
    KJ_IF_MAYBE (link, secretFrom(in.getLinkSecret())) {
      pair.identity.vm = vm;
      pair.identity.own.pair = noise::KeyPair::from(kj::mv(*own));
      pair.identity.linkSecret.bytes = kj::mv(*link);
      pair.sessionCounter = in.getSessionCounter();
      pair.inherited = in.getInherited();
      return copyTo(in.getGuestPublicKey(), pair.identity.guest.bytes);
    }
  }
  return false;
}

bool take(schema::HostState::Offer::Reader in, HostOffer& offer) {
  KJ_IF_MAYBE (own, secretFrom(in.getOwnSecretKey())) {
    KJ_IF_MAYBE (token, secretFrom(in.getToken())) {
      offer.own.pair = noise::KeyPair::from(kj::mv(*own));
      offer.token.bytes = kj::mv(*token);
      offer.issuedAt = in.getIssuedAt();
      offer.lifetimeSeconds = in.getLifetimeSeconds();
      GuestPublicKey guest;
      if (copyTo(in.getGuestPublicKey(), guest.bytes)) offer.guest = guest;
      offer.linkSecret = secretOrNull<LinkSecret>(in.getLinkSecret());
      return (in.getGuestPublicKey().size() == 0) == (offer.guest == nullptr) &&
             (in.getLinkSecret().size() == 0) == (offer.linkSecret == nullptr) &&
             (offer.guest == nullptr) == (offer.linkSecret == nullptr);
    }
  }
  return false;
}

bool take(schema::HostState::Reader in, HostState& state) {
  if (in.hasCurrent()) {
    HostPair pair;
    if (!take(in.getCurrent(), state.vm, pair)) return false;
    state.current = kj::mv(pair);
  }
  if (in.hasOffer()) {
    HostOffer offer;
    if (!take(in.getOffer(), offer)) return false;
    state.offer = kj::mv(offer);
  }
  return true;
}

}  // namespace

kj::StringPtr describe(IdentityError error) {
  switch (error) {
    case IdentityError::MALFORMED:
      return "does not hold an identity; remove it and enrol again";
    case IdentityError::NEWER_FORMAT:
      return "was written by a later version of Postern; upgrade this one";
  }
  KJ_UNREACHABLE;
}

kj::Maybe<GuestIdentity> GuestState::identity() const {
  KJ_IF_MAYBE (secret, linkSecret) {
    return GuestIdentity{vm, {own.pair.clone()}, KJ_ASSERT_NONNULL(host), {secret->bytes.clone()}};
  }
  return nullptr;
}

kj::Maybe<GuestEnrolment> GuestState::enrolment() const {
  KJ_IF_MAYBE (t, token) {
    return GuestEnrolment{vm, {own.pair.clone()}, host, {t->bytes.clone()}};
  }
  return nullptr;
}

kj::Array<kj::byte> encodeState(const GuestState& state) {
  return encode<schema::GuestState>(state.vm, [&](schema::GuestState::Builder out) {
    out.setOwnSecretKey(state.own.pair.secretKey.asPtr());
    KJ_IF_MAYBE (host, state.host) out.setHostPublicKey(data(host->bytes));
    KJ_IF_MAYBE (secret, state.linkSecret) out.setLinkSecret(secret->bytes.asPtr());
    KJ_IF_MAYBE (token, state.token) out.setToken(token->bytes.asPtr());
    out.setSessionCounter(state.sessionCounter);
    out.setMachine(data(state.machine));
    out.setGrantsAdopted(state.grantsAdopted);
  });
}

kj::Array<kj::byte> encodeState(const HostState& state) {
  return encode<schema::HostState>(state.vm, [&](schema::HostState::Builder out) {
    KJ_IF_MAYBE (pair, state.current) {
      auto current = out.initCurrent();
      current.setOwnSecretKey(pair->identity.own.pair.secretKey.asPtr());
      current.setGuestPublicKey(data(pair->identity.guest.bytes));
      current.setLinkSecret(pair->identity.linkSecret.bytes.asPtr());
      current.setSessionCounter(pair->sessionCounter);
      current.setInherited(pair->inherited);
    }
    KJ_IF_MAYBE (o, state.offer) {
      auto offer = out.initOffer();
      offer.setOwnSecretKey(o->own.pair.secretKey.asPtr());
      offer.setToken(o->token.bytes.asPtr());
      offer.setIssuedAt(o->issuedAt);
      offer.setLifetimeSeconds(o->lifetimeSeconds);
      KJ_IF_MAYBE (guest, o->guest) offer.setGuestPublicKey(data(guest->bytes));
      KJ_IF_MAYBE (secret, o->linkSecret) offer.setLinkSecret(secret->bytes.asPtr());
    }
  });
}

kj::OneOf<kj::Own<GuestState>, IdentityError> decodeGuestState(kj::ArrayPtr<const kj::byte> stored) {
  return decode<schema::GuestState, GuestState>(stored, [](auto in, GuestState& state) { return take(in, state); });
}

kj::OneOf<kj::Own<HostState>, IdentityError> decodeHostState(kj::ArrayPtr<const kj::byte> stored) {
  return decode<schema::HostState, HostState>(stored, [](auto in, HostState& state) { return take(in, state); });
}

}  // namespace postern
