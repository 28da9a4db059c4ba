#include "protocol/keys.h"

#include <doctest/doctest.h>

#include <set>
#include <string>
#include <type_traits>

#include "tests/support/test-random.h"

namespace postern {
namespace {

using test::TestRandom;

// A key can stand in for no other.
static_assert(!std::is_convertible_v<HostPublicKey, GuestPublicKey>);
static_assert(!std::is_convertible_v<GuestPublicKey, HostPublicKey>);
static_assert(!std::is_convertible_v<HostKeyPair, GuestKeyPair>);
static_assert(!std::is_convertible_v<LinkSecret, EnrolmentToken>);
static_assert(!std::is_convertible_v<EnrolmentToken, LinkSecret>);
static_assert(!std::is_copy_constructible_v<LinkSecret> && !std::is_copy_constructible_v<HostKeyPair>);

std::string hex(kj::ArrayPtr<const kj::byte> bytes) {
  std::string text;
  for (auto b : bytes) {
    text += "0123456789abcdef"[b >> 4];
    text += "0123456789abcdef"[b & 15];
  }
  return text;
}

template <size_t N>
std::string hex(const std::array<kj::byte, N>& bytes) {
  return hex(kj::arrayPtr(bytes.data(), bytes.size()));
}

noise::PublicKey keyOf(kj::byte fill) {
  noise::PublicKey key;
  key.fill(fill);
  return key;
}

// Computed from keys.h's words with Python's hashlib.blake2b. They are on disks and on paper: they never change.
TEST_CASE("hints and fingerprints have their known values") {
  CHECK(hex(keyHint(HostPublicKey{keyOf(1)}, GuestPublicKey{keyOf(2)})) == "359eb36ad73feb97");
  EnrolmentToken token{Secret<32>(kj::arrayPtr(keyOf(3).data(), 32))};
  CHECK(hex(tokenHint(token)) == "a72ab7958da5c85a");
  CHECK((fingerprint(HostPublicKey{keyOf(1)}) == "8a92-9e93-a580-6c77-fb11-c6dd-c91f-3568"));
  CHECK((fingerprint(GuestPublicKey{keyOf(1)}) == "3568-3530-a59c-af96-61b9-f3cc-8437-d6ff"));
}

TEST_CASE("a hint depends on both keys and on which is whose") {
  std::set<std::string> hints;
  for (auto host : {kj::byte(1), kj::byte(2)}) {
    for (auto guest : {kj::byte(1), kj::byte(2)}) {
      hints.insert(hex(keyHint(HostPublicKey{keyOf(host)}, GuestPublicKey{keyOf(guest)})));
    }
  }
  CHECK(hints.size() == 4);
}

HelloPair helloPair(Role self, kj::byte ownNonce, kj::byte peerNonce) {
  HelloPair pair{self, {}, {}, {}, {}};
  pair.own.nonce.fill(ownNonce);
  pair.peer.nonce.fill(peerNonce);
  return pair;
}

noise::KeyPair staticKey(kj::byte fill) {
  Secret<32> secret;
  secret.asPtr().begin()[5] = fill;
  return noise::KeyPair::from(kj::mv(secret));
}

std::string ephemeral(kj::byte key, uint64_t randomState, const HelloPair& hellos) {
  TestRandom random(randomState);
  auto pair = hedgedEphemeral(staticKey(key), random, hellos);
  return hex(pair.publicKey);
}

TEST_CASE("clones with the same random numbers get different ephemeral keys from a fresh nonce of the peer's") {
  auto first = ephemeral(1, 77, helloPair(Role::GUEST, 10, 20));
  CHECK(first == ephemeral(1, 77, helloPair(Role::GUEST, 10, 20)));
  CHECK(first != ephemeral(1, 77, helloPair(Role::GUEST, 10, 21)));  // the peer's nonce
}

TEST_CASE("an ephemeral key depends on the random numbers, both nonces, the role and the static key") {
  std::set<std::string> all = {
      ephemeral(1, 77, helloPair(Role::GUEST, 10, 20)), ephemeral(1, 78, helloPair(Role::GUEST, 10, 20)),
      ephemeral(1, 77, helloPair(Role::GUEST, 11, 20)), ephemeral(1, 77, helloPair(Role::GUEST, 10, 21)),
      ephemeral(1, 77, helloPair(Role::GUEST, 20, 10)), ephemeral(1, 77, helloPair(Role::HOST, 10, 20)),
      ephemeral(2, 77, helloPair(Role::GUEST, 10, 20)),
  };
  CHECK(all.size() == 7);
}

class BrokenRandom final : public Random {
 public:
  void fill(kj::ArrayPtr<kj::byte> out) override { memset(out.begin(), 0, out.size()); }
};

TEST_CASE("a broken random generator alone does not give an ephemeral key away") {
  BrokenRandom random;
  auto hellos = helloPair(Role::HOST, 1, 2);
  auto pair = hedgedEphemeral(staticKey(1), random, hellos);
  auto other = hedgedEphemeral(staticKey(2), random, hellos);
  CHECK(pair.publicKey != other.publicKey);
  CHECK(!pair.secretKey.isZero());
}

TEST_CASE("an ephemeral key has its known value") {
  // Computed likewise, with Python's cryptography for the public half.
  CHECK(ephemeral(1, 77, helloPair(Role::GUEST, 10, 20)) ==
        "256f6f83c2cd34c65a8ff6df4684e9aa756e13bb02a5ba02fec0a6f4c379eb46");
}

TEST_CASE("both halves of a key belong together") {
  TestRandom random(9);
  auto pair = HostKeyPair::generate(random);
  auto again = noise::KeyPair::from(pair.pair.secretKey.clone());
  CHECK(again.publicKey == pair.publicKey().bytes);
}

}  // namespace
}  // namespace postern
