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

// Builds the part that both structs share, then serialises; `peerKey` sets the one field whose name differs.
template <typename Struct, typename Identity, typename SetPeer>
kj::Array<kj::byte> encode(const Identity& identity, uint64_t counter, SetPeer&& setPeer) {
  SecretWords space;
  capnp::MallocMessageBuilder message(kj::arrayPtr(space.words, MAX_WORDS));
  auto out = message.initRoot<Struct>();
  out.setFormat(FORMAT);
  out.setVm(data(identity.vm.bytes));
  out.setOwnSecretKey(identity.own.pair.secretKey.asPtr());
  out.setLinkSecret(identity.linkSecret.bytes.asPtr());
  out.setSessionCounter(counter);
  setPeer(out);
  auto words = capnp::messageToFlatArray(message);
  KJ_DEFER(sodium_memzero(words.begin(), words.asBytes().size()));
  return kj::heapArray<kj::byte>(words.asBytes());
}

// Decodes the part that both share into `identity`; `getPeer` reads the other's key.
template <typename Struct, typename Identity, typename GetPeer>
kj::OneOf<uint64_t, IdentityError> decode(kj::ArrayPtr<const kj::byte> stored, Identity& identity, GetPeer&& getPeer) {
  kj::OneOf<uint64_t, IdentityError> result = IdentityError::MALFORMED;
  if (stored.size() > sizeof(SecretWords::words) || stored.size() % sizeof(capnp::word) != 0) return result;
  SecretWords space;
  if (stored.size() > 0) memcpy(static_cast<void*>(space.words), stored.begin(), stored.size());
  auto words = kj::arrayPtr(space.words, stored.size() / sizeof(capnp::word));
  auto broken = kj::runCatchingExceptions([&]() {
    capnp::FlatArrayMessageReader reader(words);
    auto in = reader.getRoot<Struct>();
    if (in.getFormat() > FORMAT) {
      result = IdentityError::NEWER_FORMAT;
      return;
    }
    if (in.getFormat() != FORMAT || !copyTo(in.getVm(), identity.vm.bytes) || !getPeer(in)) return;
    KJ_IF_MAYBE (own, secretFrom(in.getOwnSecretKey())) {
      KJ_IF_MAYBE (link, secretFrom(in.getLinkSecret())) {
        identity.own.pair = noise::KeyPair::from(kj::mv(*own));
        identity.linkSecret.bytes = kj::mv(*link);
        result = in.getSessionCounter();
      }
    }
  });
  if (broken != nullptr) return IdentityError::MALFORMED;
  return result;
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

kj::Array<kj::byte> encodeState(const GuestState& state) {
  return encode<schema::GuestState>(state.identity, state.sessionCounter,
                                    [&](auto out) { out.setHostPublicKey(data(state.identity.host.bytes)); });
}

kj::Array<kj::byte> encodeState(const HostState& state) {
  return encode<schema::HostState>(state.identity, state.sessionCounter,
                                   [&](auto out) { out.setGuestPublicKey(data(state.identity.guest.bytes)); });
}

kj::OneOf<kj::Own<GuestState>, IdentityError> decodeGuestState(kj::ArrayPtr<const kj::byte> stored) {
  auto state = newLocked(GuestState());
  auto counter = decode<schema::GuestState>(
      stored, state->identity, [&](auto in) { return copyTo(in.getHostPublicKey(), state->identity.host.bytes); });
  if (counter.is<IdentityError>()) return counter.get<IdentityError>();
  state->sessionCounter = counter.get<uint64_t>();
  return kj::mv(state);
}

kj::OneOf<kj::Own<HostState>, IdentityError> decodeHostState(kj::ArrayPtr<const kj::byte> stored) {
  auto state = newLocked(HostState());
  auto counter = decode<schema::HostState>(
      stored, state->identity, [&](auto in) { return copyTo(in.getGuestPublicKey(), state->identity.guest.bytes); });
  if (counter.is<IdentityError>()) return counter.get<IdentityError>();
  state->sessionCounter = counter.get<uint64_t>();
  return kj::mv(state);
}

}  // namespace postern
