#include "protocol/noise/cipher-state.h"

#include <kj/debug.h>
#include <string.h>

#include <array>

namespace postern::noise {
namespace {

using AeadNonce = std::array<kj::byte, crypto_aead_chacha20poly1305_ietf_NPUBBYTES>;

// Four zero bytes, then the number, little-endian.
AeadNonce nonceOf(uint64_t number) {
  AeadNonce nonce{};
  for (size_t i = 0; i < 8; ++i) nonce[4 + i] = kj::byte(number >> (8 * i));
  return nonce;
}

// Section 5.1 reserves the highest number.
constexpr uint64_t LAST_NUMBER = UINT64_MAX - 1;

}  // namespace

void CipherState::setKey(const Secret<32>& newKey) {
  key = newKey.clone();
  next = 0;
  keyed = true;
}

void CipherState::encrypt(Bytes associatedData, Bytes plaintext, kj::ArrayPtr<kj::byte> out) {
  KJ_REQUIRE(out.size() == plaintext.size() + overhead());
  if (!keyed) {
    if (plaintext.size() > 0) memmove(out.begin(), plaintext.begin(), plaintext.size());
    return;
  }
  KJ_REQUIRE(next <= LAST_NUMBER);
  crypto_aead_chacha20poly1305_ietf_encrypt(out.begin(), nullptr, plaintext.begin(), plaintext.size(),
                                            associatedData.begin(), associatedData.size(), nullptr,
                                            nonceOf(next).data(), key.begin());
  ++next;
}

bool CipherState::decrypt(Bytes associatedData, Bytes untrustedCiphertext, kj::ArrayPtr<kj::byte> out) {
  if (untrustedCiphertext.size() < overhead()) return false;
  KJ_REQUIRE(out.size() == untrustedCiphertext.size() - overhead());
  if (!keyed) {
    if (out.size() > 0) memmove(out.begin(), untrustedCiphertext.begin(), out.size());
    return true;
  }
  KJ_REQUIRE(next <= LAST_NUMBER);
  if (crypto_aead_chacha20poly1305_ietf_decrypt(out.begin(), nullptr, nullptr, untrustedCiphertext.begin(),
                                                untrustedCiphertext.size(), associatedData.begin(),
                                                associatedData.size(), nonceOf(next).data(), key.begin()) != 0) {
    if (out.size() > 0) sodium_memzero(out.begin(), out.size());
    return false;
  }
  ++next;
  return true;
}

void CipherState::wipe() {
  key.wipe();
  next = 0;
  keyed = false;
}

}  // namespace postern::noise
