#include "protocol/noise/symmetric-state.h"

#include <kj/debug.h>
#include <string.h>

namespace postern::noise {

SymmetricState::SymmetricState(HashKind kind, kj::ArrayPtr<const char> protocolName) : kind(kind) {
  auto name = protocolName.asBytes();
  if (name.size() <= hashBytes(kind)) {
    memcpy(transcript, name.begin(), name.size());  // the rest is zero already
  } else {
    hash(kind, {name}, transcriptBytes());
  }
  memcpy(chainingKey.begin(), transcript, hashBytes(kind));
}

void SymmetricState::mixHash(Bytes data) {
  hash(kind, {handshakeHash(), data}, transcriptBytes());
}

void SymmetricState::mixKey(Bytes inputKeyMaterial) {
  Secret<32> key;
  hkdf(kind, chainingKeyBytes(), inputKeyMaterial, {chainingKeyBytes(), key.asPtr()});
  cipher.setKey(key);
}

void SymmetricState::mixKeyAndHash(Bytes inputKeyMaterial) {
  Secret<MAX_HASH_BYTES> forHash;
  Secret<32> key;
  auto forHashBytes = forHash.asPtr().slice(0, hashBytes(kind));
  hkdf(kind, chainingKeyBytes(), inputKeyMaterial, {chainingKeyBytes(), forHashBytes, key.asPtr()});
  mixHash(forHashBytes);
  cipher.setKey(key);
}

void SymmetricState::encryptAndHash(Bytes plaintext, kj::ArrayPtr<kj::byte> out) {
  cipher.encrypt(handshakeHash(), plaintext, out);
  mixHash(out);
}

bool SymmetricState::decryptAndHash(Bytes untrustedCiphertext, kj::ArrayPtr<kj::byte> out) {
  if (!cipher.decrypt(handshakeHash(), untrustedCiphertext, out)) return false;
  mixHash(untrustedCiphertext);
  return true;
}

SessionKeys SymmetricState::split() {
  SessionKeys keys;
  hkdf(kind, chainingKeyBytes(), nullptr, {keys.initiatorToResponder.asPtr(), keys.responderToInitiator.asPtr()});
  chainingKey.wipe();
  cipher.wipe();
  return keys;
}

void SymmetricState::wipe() {
  chainingKey.wipe();
  cipher.wipe();
  sodium_memzero(transcript, sizeof(transcript));
}

}  // namespace postern::noise
