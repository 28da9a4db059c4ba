#include "protocol/record-cipher.h"

#include <kj/debug.h>
#include <sodium.h>
#include <string.h>

#include "protocol/wire-int.h"

namespace postern {

namespace {

// libsodium chooses its fast implementations here, once, before main(); whoever seals records links this file.
[[maybe_unused]] const int SODIUM_READY = sodium_init();

static_assert(TAG_BYTES == crypto_aead_chacha20poly1305_IETF_ABYTES);

// Noise reserves the last nonce for REKEY. Nobody gets there: a session is renewed long before.
constexpr uint64_t REKEY_NONCE = ~uint64_t(0);

struct NonceBytes {
  kj::byte bytes[crypto_aead_chacha20poly1305_IETF_NPUBBYTES] = {};
  explicit NonceBytes(uint64_t n) { putLittleEndian<uint64_t>(n, bytes + 4); }
};

Secret<32> nextKey(const Secret<32>& key) {
  const kj::byte zeros[32] = {};
  Secret<32 + TAG_BYTES> out;
  crypto_aead_chacha20poly1305_ietf_encrypt(out.begin(), nullptr, zeros, sizeof(zeros), nullptr, 0, nullptr,
                                            NonceBytes(REKEY_NONCE).bytes, key.begin());
  return Secret<32>(out.asPtr().slice(0, 32));
}

}  // namespace

kj::ArrayPtr<const kj::byte> RecordSealer::seal(const RecordHeader& header, kj::ArrayPtr<kj::byte> buffer,
                                                size_t dataBytes) {
  size_t inner = RECORD_HEADER_BYTES + dataBytes + header.padLength;
  size_t body = inner + TAG_BYTES;
  KJ_REQUIRE(body <= MAX_FRAME_BODY_BYTES && buffer.size() >= FRAME_HEADER_BYTES + body, "record too long");
  // T17
  KJ_ASSERT(nonce < REKEY_NONCE);

  writeFrameHeader({static_cast<uint16_t>(body), FrameKind::RECORD, tag}, buffer);
  auto* plain = buffer.begin() + FRAME_HEADER_BYTES;
  writeRecordHeader(header, kj::arrayPtr(plain, RECORD_HEADER_BYTES));
  memset(plain + RECORD_HEADER_BYTES + dataBytes, 0, header.padLength);
  crypto_aead_chacha20poly1305_ietf_encrypt(plain, nullptr, plain, inner, nullptr, 0, nullptr, NonceBytes(nonce).bytes,
                                            key.bytes.begin());
  ++nonce;
  ++sinceRekey;
  bytes += body;
  return buffer.slice(0, FRAME_HEADER_BYTES + body);
}

void RecordSealer::rekey() {
  key.bytes = nextKey(key.bytes);
  sinceRekey = 0;
}

kj::StringPtr describe(RecordError error) {
  switch (error) {
    case RecordError::TOO_SHORT:
      return "record too short";
    case RecordError::BAD_TAG:
      return "record that does not authenticate";
    case RecordError::BAD_RECORD:
      return "authentic record with a bad header";
    case RecordError::DEAD:
      return "record after a failure";
  }
  KJ_UNREACHABLE;
}

// T16
RecordError RecordOpener::fail(RecordError error) {
  dead = true;
  key.bytes.wipe();
  return error;
}

// T14, T15
kj::OneOf<Record, RecordError> RecordOpener::open(kj::ArrayPtr<const kj::byte> untrustedBody,
                                                  kj::ArrayPtr<kj::byte> out) {
  if (dead) return RecordError::DEAD;
  if (untrustedBody.size() < TAG_BYTES + RECORD_HEADER_BYTES) return fail(RecordError::TOO_SHORT);
  KJ_REQUIRE(out.size() == innerBytes(untrustedBody.size()));
  if (nonce == REKEY_NONCE) return fail(RecordError::BAD_TAG);

  int result = crypto_aead_chacha20poly1305_ietf_decrypt(out.begin(), nullptr, nullptr, untrustedBody.begin(),
                                                         untrustedBody.size(), nullptr, 0, NonceBytes(nonce).bytes,
                                                         key.bytes.begin());
  if (result != 0) return fail(RecordError::BAD_TAG);
  ++nonce;
  ++sinceRekey;
  bytes += untrustedBody.size();
  KJ_IF_MAYBE (record, parseRecord(out)) {
    return *record;
  }
  return fail(RecordError::BAD_RECORD);
}

void RecordOpener::rekey() {
  key.bytes = nextKey(key.bytes);
  sinceRekey = 0;
}

}  // namespace postern
