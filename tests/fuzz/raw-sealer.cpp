#include "tests/fuzz/raw-sealer.h"

#include <sodium.h>
#include <string.h>

#include "protocol/wire-int.h"

namespace postern::fuzz {

namespace {

constexpr size_t TAG = crypto_aead_chacha20poly1305_IETF_ABYTES;

void encrypt(kj::byte* out, kj::ArrayPtr<const kj::byte> plain, uint64_t nonce, const Secret<32>& key) {
  kj::byte bytes[crypto_aead_chacha20poly1305_IETF_NPUBBYTES] = {};
  putLittleEndian<uint64_t>(nonce, bytes + 4);
  crypto_aead_chacha20poly1305_ietf_encrypt(out, nullptr, plain.begin(), plain.size(), nullptr, 0, nullptr, bytes,
                                            key.begin());
}

}  // namespace

kj::Array<kj::byte> RawSealer::seal(kj::ArrayPtr<const kj::byte> inner) {
  auto frame = kj::heapArray<kj::byte>(FRAME_HEADER_BYTES + inner.size() + TAG);
  writeFrameHeader({static_cast<uint16_t>(inner.size() + TAG), FrameKind::RECORD, tag}, frame);
  encrypt(frame.begin() + FRAME_HEADER_BYTES, inner, nonce++, key);
  return frame;
}

void RawSealer::rekey() {
  const kj::byte zeros[32] = {};
  kj::byte out[32 + TAG];
  encrypt(out, zeros, ~uint64_t(0), key);
  key = Secret<32>(kj::arrayPtr(out, 32));
}

}  // namespace postern::fuzz
