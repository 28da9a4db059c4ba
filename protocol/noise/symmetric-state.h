#pragma once
// SymmetricState (section 5.2): the chaining key, the transcript hash and the handshake's cipher. Knows nothing of
// tokens or of Diffie-Hellman. Never allocates.

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>

#include "protocol/noise/cipher-state.h"
#include "protocol/noise/hash.h"
#include "protocol/secret.h"

namespace postern::noise {

// What a handshake is for. Each key is for one direction only.
struct SessionKeys {
  Secret<32> initiatorToResponder;
  Secret<32> responderToInitiator;
};

class SymmetricState {
 public:
  using Bytes = kj::ArrayPtr<const kj::byte>;

  SymmetricState(HashKind kind, kj::ArrayPtr<const char> protocolName);
  KJ_DISALLOW_COPY(SymmetricState);

  void mixHash(Bytes data);
  void mixKey(Bytes inputKeyMaterial);
  void mixKeyAndHash(Bytes inputKeyMaterial);

  // EncryptAndHash and DecryptAndHash; sizes and results as in CipherState. A failed decryption leaves the hash as it
  // was: the owner wipes us.
  void encryptAndHash(Bytes plaintext, kj::ArrayPtr<kj::byte> out);
  [[nodiscard]] bool decryptAndHash(Bytes untrustedCiphertext, kj::ArrayPtr<kj::byte> out);

  bool hasKey() const { return cipher.hasKey(); }
  size_t overhead() const { return cipher.overhead(); }

  // The transcript hash h, HASHLEN bytes.
  Bytes handshakeHash() const { return kj::arrayPtr(transcript, hashBytes(kind)); }

  // Wipes chaining key and cipher; the transcript hash stays.
  SessionKeys split();
  // Wipes all.
  void wipe();

 private:
  HashKind kind;
  Secret<MAX_HASH_BYTES> chainingKey;
  kj::byte transcript[MAX_HASH_BYTES] = {};
  CipherState cipher;

  kj::ArrayPtr<kj::byte> chainingKeyBytes() { return chainingKey.asPtr().slice(0, hashBytes(kind)); }
  kj::ArrayPtr<kj::byte> transcriptBytes() { return kj::arrayPtr(transcript, hashBytes(kind)); }
};

}  // namespace postern::noise
