#include "protocol/keys.h"

#include <kj/vector.h>
#include <sodium.h>
#include <string.h>

namespace postern {

namespace {

using Bytes = kj::ArrayPtr<const kj::byte>;

Bytes bytesOf(const noise::PublicKey& key) {
  return kj::arrayPtr(key.data(), key.size());
}

// BLAKE2b-512 of a context string (with its zero) and the pieces, optionally keyed.
struct Digest {
  Secret<64> bytes;

  Digest(kj::StringPtr context, std::initializer_list<Bytes> pieces, Bytes key = nullptr) {
    crypto_generichash_state state;
    crypto_generichash_init(&state, key.begin(), key.size(), Secret<64>::SIZE);
    crypto_generichash_update(&state, reinterpret_cast<const kj::byte*>(context.begin()), context.size() + 1);
    for (auto piece : pieces) crypto_generichash_update(&state, piece.begin(), piece.size());
    crypto_generichash_final(&state, bytes.begin(), Secret<64>::SIZE);
    sodium_memzero(&state, sizeof(state));
  }
};

Hint hintOf(const Digest& digest) {
  Hint hint;
  memcpy(hint.data(), digest.bytes.begin(), hint.size());
  return hint;
}

kj::String fingerprintOf(kj::StringPtr context, const noise::PublicKey& key) {
  Digest digest(context, {bytesOf(key)});
  kj::Vector<char> text;
  for (size_t i = 0; i < 16; ++i) {
    if (i > 0 && i % 2 == 0) text.add('-');
    text.add("0123456789abcdef"[digest.bytes.begin()[i] >> 4]);
    text.add("0123456789abcdef"[digest.bytes.begin()[i] & 15]);
  }
  return kj::heapString(text.asPtr());
}

}  // namespace

LinkSecret LinkSecret::generate(Random& random) {
  LinkSecret result;
  random.fill(result.bytes.asPtr());
  return result;
}

EnrolmentToken EnrolmentToken::generate(Random& random) {
  EnrolmentToken result;
  random.fill(result.bytes.asPtr());
  return result;
}

Hint keyHint(const HostPublicKey& host, const GuestPublicKey& guest) {
  return hintOf(Digest("postern/1 key hint", {bytesOf(host.bytes), bytesOf(guest.bytes)}));
}

Hint tokenHint(const EnrolmentToken& token) {
  return hintOf(Digest("postern/1 token hint", {}, token.bytes.asPtr()));
}

kj::String fingerprint(const HostPublicKey& key) {
  return fingerprintOf("postern/1 host fingerprint", key.bytes);
}
kj::String fingerprint(const GuestPublicKey& key) {
  return fingerprintOf("postern/1 guest fingerprint", key.bytes);
}

// T13
noise::KeyPair hedgedEphemeral(const noise::KeyPair& staticKey, Random& random, const HelloPair& hellos) {
  Digest hedgeKey("postern/1 hedge key", {}, staticKey.secretKey.asPtr());
  Secret<32> fresh;
  random.fill(fresh.asPtr());
  const auto role = static_cast<kj::byte>(hellos.self);
  Digest seed("postern/1 ephemeral",
              {fresh.asPtr(), kj::arrayPtr(hellos.peer.nonce.data(), hellos.peer.nonce.size()),
               kj::arrayPtr(hellos.own.nonce.data(), hellos.own.nonce.size()), kj::arrayPtr(&role, 1)},
              hedgeKey.bytes.asPtr());
  return noise::KeyPair::from(Secret<32>(seed.bytes.asPtr().slice(0, 32)));
}

}  // namespace postern
