#include "protocol/noise/hash.h"

#include <doctest/doctest.h>
#include <kj/debug.h>
#include <kj/encoding.h>
#include <string.h>

namespace postern::noise {
namespace {

constexpr HashKind ALL[] = {HashKind::BLAKE2B, HashKind::SHA256, HashKind::SHA512};

kj::String hexOf(HashKind kind, Pieces pieces) {
  kj::byte out[MAX_HASH_BYTES];
  hash(kind, pieces, kj::arrayPtr(out, hashBytes(kind)));
  return kj::encodeHex(kj::arrayPtr(out, hashBytes(kind)));
}

kj::String hmacHexOf(HashKind kind, kj::ArrayPtr<const kj::byte> key, Pieces pieces) {
  kj::byte out[MAX_HASH_BYTES];
  hmac(kind, key, pieces, kj::arrayPtr(out, hashBytes(kind)));
  return kj::encodeHex(kj::arrayPtr(out, hashBytes(kind)));
}

// RFC 7693 appendix A, FIPS 180-4's examples.
TEST_CASE("hashes of abc are the published ones, however the text is cut") {
  constexpr kj::StringPtr EXPECTED[] = {
      "ba80a53f981c4d0d6a2797b69f12f6e94c212f14685ac4b74b12bb6fdbffa2d1"
      "7d87c5392aab792dc252d5de4533cc9518d38aa8dbf1925ab92386edd4009923"_kj,
      "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"_kj,
      "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a"
      "2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"_kj};
  for (size_t i = 0; i < 3; ++i) {
    CHECK((hexOf(ALL[i], {"abc"_kj.asBytes()}) == EXPECTED[i]));
    CHECK((hexOf(ALL[i], {"a"_kj.asBytes(), nullptr, "bc"_kj.asBytes()}) == EXPECTED[i]));
  }
}

// RFC 4231 test case 2; for BLAKE2b, Python's hmac and hashlib.
TEST_CASE("HMACs are the published ones") {
  constexpr kj::StringPtr EXPECTED[] = {
      "6ff884f8ddc2a6586b3c98a4cd6ebdf14ec10204b6710073eb5865ade37a2643"
      "b8807c1335d107ecdb9ffeaeb6828c4625ba172c66379efcd222c2de11727ab4"_kj,
      "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"_kj,
      "164b7a7bfcf819e2e395fbe73b56e0a387bd64222e831fd610270cd7ea250554"
      "9758bf75c05a994a6d034f65f8f0e6fdcaeab1a34d4a6b4b636e070a38bce737"_kj};
  for (size_t i = 0; i < 3; ++i) {
    CHECK((hmacHexOf(ALL[i], "Jefe"_kj.asBytes(), {"what do ya want "_kj.asBytes(), "for nothing?"_kj.asBytes()}) ==
           EXPECTED[i]));
  }
}

// RFC 5869 test case 3: Noise's HKDF is that one without info.
TEST_CASE("HKDF is RFC 5869's, and each output takes as many bytes as it has room for") {
  kj::byte input[22];
  memset(input, 0x0b, sizeof(input));
  kj::byte out[42];
  hkdf(HashKind::SHA256, nullptr, input, {kj::arrayPtr(out, 32), kj::arrayPtr(out + 32, 10)});
  CHECK((kj::encodeHex(out) == "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8"));
}

TEST_CASE("two outputs of HKDF are the first of three, also when one is written over the chaining key") {
  for (auto kind : ALL) {
    size_t size = hashBytes(kind);
    kj::byte chainingKey[MAX_HASH_BYTES] = {1, 2, 3};
    kj::byte three[3][MAX_HASH_BYTES];
    auto key = kj::arrayPtr(chainingKey, size);
    hkdf(kind, key, "input"_kj.asBytes(),
         {kj::arrayPtr(three[0], size), kj::arrayPtr(three[1], size), kj::arrayPtr(three[2], size)});

    kj::byte second[32];
    hkdf(kind, key, "input"_kj.asBytes(), {key, second});
    CHECK((key == kj::arrayPtr(three[0], size)));
    CHECK((memcmp(second, three[1], sizeof(second)) == 0));
    CHECK((memcmp(three[1], three[2], size) != 0));
  }
}

TEST_CASE("hash names are the specification's and parse back") {
  for (auto kind : ALL) CHECK((KJ_ASSERT_NONNULL(parseHashName(hashName(kind))) == kind));
  for (auto name : {"", "BLAKE2s", "BLAKE2", "blake2b", "SHA-256", "SHA384", "SHA2566"}) {
    CHECK((parseHashName(name) == nullptr));
  }
}

TEST_CASE("wrong sizes are the caller's bug") {
  kj::byte out[MAX_HASH_BYTES] = {};
  kj::byte longKey[129] = {};
  auto half = kj::arrayPtr(out, 32);
  CHECK_THROWS(hash(HashKind::BLAKE2B, {half}, half));
  CHECK_THROWS(hmac(HashKind::SHA512, longKey, {half}, out));
  CHECK_THROWS(hkdf(HashKind::SHA256, half, half, {half}));
  CHECK_THROWS(hkdf(HashKind::SHA256, half, half, {half, half, half, half}));
  CHECK_THROWS(hkdf(HashKind::SHA256, half, half, {half, kj::arrayPtr(out, 33)}));
}

}  // namespace
}  // namespace postern::noise
