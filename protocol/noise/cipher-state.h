#pragma once
// CipherState (section 5.1) with ChaCha20-Poly1305 (section 12.3): a key, which may be absent, and the number of the
// next message under it. Used within the handshake; a session's records have a cipher of their own.

#include <kj/array.h>
#include <kj/common.h>
#include <sodium.h>
#include <stdint.h>

#include "protocol/secret.h"

namespace postern::noise {

constexpr size_t TAG_BYTES = crypto_aead_chacha20poly1305_ietf_ABYTES;

class CipherState {
 public:
  using Bytes = kj::ArrayPtr<const kj::byte>;

  CipherState() = default;
  KJ_DISALLOW_COPY(CipherState);

  // Starts numbering at 0.
  void setKey(const Secret<32>& key);
  bool hasKey() const { return keyed; }
  // Bytes that encryption adds: 0 without a key.
  size_t overhead() const { return keyed ? TAG_BYTES : 0; }

  // EncryptWithAd. `out` has plaintext.size() + overhead() bytes. Without a key the text is copied.
  void encrypt(Bytes associatedData, Bytes plaintext, kj::ArrayPtr<kj::byte> out);

  // DecryptWithAd. False when the tag is wrong or missing; `out` (ciphertext.size() - overhead() bytes) then holds
  // nothing of the text, and the number has not moved.
  [[nodiscard]] bool decrypt(Bytes associatedData, Bytes untrustedCiphertext, kj::ArrayPtr<kj::byte> out);

  void wipe();

 private:
  Secret<32> key;
  uint64_t next = 0;
  bool keyed = false;
};

}  // namespace postern::noise
