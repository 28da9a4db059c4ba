#include "protocol/hello.h"

#include <kj/debug.h>
#include <sodium.h>
#include <string.h>

#include "protocol/crc32c.h"
#include "protocol/wire-int.h"

namespace postern {

namespace {

constexpr kj::byte MAGIC[4] = {'P', 'S', 'T', 'N'};

enum Offset : size_t {
  VERSION_MIN = 4,
  VERSION_MAX = 5,
  ROLE = 6,
  TRANSPORT = 7,
  SUITES = 8,
  PATTERNS = 12,
  NONCE = 16,
  KEY_HINT = 48,
  TOKEN_HINT = 56,
  ECHO_EPOCH = 96,
  REPLY = 104,
  ZERO = 105,
  CRC = 108,
};

bool fieldsAreDefined(kj::ArrayPtr<const kj::byte> bytes) {
  if (bytes[ROLE] != kj::byte(Role::GUEST) && bytes[ROLE] != kj::byte(Role::HOST)) return false;
  if (bytes[TRANSPORT] < kj::byte(TransportKind::UNIX) || bytes[TRANSPORT] > kj::byte(TransportKind::VSOCK))
    return false;
  if (bytes[REPLY] > 1) return false;
  for (size_t i = ZERO; i < CRC; ++i) {
    if (bytes[i] != 0) return false;
  }
  return true;
}

}  // namespace

kj::StringPtr describe(HelloError error) {
  switch (error) {
    case HelloError::BAD_LENGTH:
      return "HELLO of a wrong length";
    case HelloError::BAD_MAGIC:
      return "not a Postern HELLO";
    case HelloError::BAD_CRC:
      return "HELLO with a wrong checksum";
    case HelloError::BAD_FIELD:
      return "HELLO with a field that this version does not define";
    case HelloError::SAME_ROLE:
      return "the peer has the same role as this end";
    case HelloError::NO_VERSION:
      return "no protocol version in common";
  }
  KJ_UNREACHABLE;
}

Epoch Hello::epoch() const {
  Epoch result;
  memcpy(result.data(), nonce.data(), result.size());
  return result;
}

kj::ArrayPtr<const kj::byte> HelloPair::guestBytes() const {
  auto& bytes = self == Role::GUEST ? ownBytes : peerBytes;
  return kj::arrayPtr(bytes.data(), bytes.size());
}

kj::ArrayPtr<const kj::byte> HelloPair::hostBytes() const {
  auto& bytes = self == Role::HOST ? ownBytes : peerBytes;
  return kj::arrayPtr(bytes.data(), bytes.size());
}

void writeHello(const Hello& hello, kj::ArrayPtr<kj::byte> out) {
  KJ_REQUIRE(out.size() == HELLO_BYTES);
  memset(out.begin(), 0, out.size());
  memcpy(out.begin(), MAGIC, sizeof(MAGIC));
  out[VERSION_MIN] = hello.versionMin;
  out[VERSION_MAX] = hello.versionMax;
  out[ROLE] = static_cast<kj::byte>(hello.role);
  out[TRANSPORT] = static_cast<kj::byte>(hello.transport);
  putLittleEndian<uint32_t>(hello.suites, &out[SUITES]);
  putLittleEndian<uint32_t>(hello.patterns, &out[PATTERNS]);
  memcpy(&out[NONCE], hello.nonce.data(), hello.nonce.size());
  memcpy(&out[KEY_HINT], hello.keyHint.data(), hello.keyHint.size());
  memcpy(&out[TOKEN_HINT], hello.tokenHint.data(), hello.tokenHint.size());
  memcpy(&out[ECHO_EPOCH], hello.echo.data(), hello.echo.size());
  out[REPLY] = hello.replyWanted ? 1 : 0;
  putLittleEndian<uint32_t>(crc32c(out.slice(0, CRC)), &out[CRC]);
}

kj::OneOf<Hello, HelloError> parseHello(kj::ArrayPtr<const kj::byte> untrusted, const Hello& own) {
  if (untrusted.size() != HELLO_BYTES) return HelloError::BAD_LENGTH;
  if (memcmp(untrusted.begin(), MAGIC, sizeof(MAGIC)) != 0) return HelloError::BAD_MAGIC;
  if (getLittleEndian<uint32_t>(&untrusted[CRC]) != crc32c(untrusted.slice(0, CRC))) return HelloError::BAD_CRC;
  if (!fieldsAreDefined(untrusted)) return HelloError::BAD_FIELD;

  Hello hello;
  hello.versionMin = untrusted[VERSION_MIN];
  hello.versionMax = untrusted[VERSION_MAX];
  hello.role = static_cast<Role>(untrusted[ROLE]);
  hello.transport = static_cast<TransportKind>(untrusted[TRANSPORT]);
  hello.suites = getLittleEndian<uint32_t>(&untrusted[SUITES]);
  hello.patterns = getLittleEndian<uint32_t>(&untrusted[PATTERNS]);
  memcpy(hello.nonce.data(), &untrusted[NONCE], hello.nonce.size());
  memcpy(hello.keyHint.data(), &untrusted[KEY_HINT], hello.keyHint.size());
  memcpy(hello.tokenHint.data(), &untrusted[TOKEN_HINT], hello.tokenHint.size());
  memcpy(hello.echo.data(), &untrusted[ECHO_EPOCH], hello.echo.size());
  hello.replyWanted = untrusted[REPLY] != 0;

  if (hello.role == own.role) return HelloError::SAME_ROLE;
  if (hello.versionMin > hello.versionMax || hello.versionMin > own.versionMax || hello.versionMax < own.versionMin) {
    return HelloError::NO_VERSION;
  }
  return hello;
}

LinkTag linkTag(const Nonce& hostNonce, const Nonce& guestNonce) {
  // BLAKE2b is computed at its full 64 bytes and cut: the tag is a prefix, not BLAKE2b-32.
  kj::byte hash[crypto_generichash_BYTES_MAX];
  crypto_generichash_state state;
  crypto_generichash_init(&state, nullptr, 0, sizeof(hash));
  crypto_generichash_update(&state, hostNonce.data(), hostNonce.size());
  crypto_generichash_update(&state, guestNonce.data(), guestNonce.size());
  crypto_generichash_final(&state, hash, sizeof(hash));
  LinkTag tag;
  memcpy(tag.data(), hash, tag.size());
  return tag;
}

LinkTag linkTag(const HelloPair& hellos) {
  return linkTag(hellos.host().nonce, hellos.guest().nonce);
}

HelloPair pairHellos(const Hello& own, const Hello& peer, kj::ArrayPtr<const kj::byte> peerBytes) {
  KJ_REQUIRE(peerBytes.size() == HELLO_BYTES);
  HelloPair pair{own.role, own, peer, {}, {}};
  kj::byte encoded[HELLO_BYTES];
  writeHello(own, kj::arrayPtr(encoded, sizeof(encoded)));
  memcpy(pair.ownBytes.data(), encoded, HELLO_PROLOGUE_BYTES);
  memcpy(pair.peerBytes.data(), peerBytes.begin(), HELLO_PROLOGUE_BYTES);
  return pair;
}

}  // namespace postern
