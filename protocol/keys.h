#pragma once
// The keys of a host-guest pair, each with a type of its own so that none can stand in for another.
//
// Keys are pairwise: enrolling a VM makes one key pair at each end, and each pins the other's public half. The link
// secret is Noise's psk of every later session; the token is the psk of the enrolment alone.

#include <kj/array.h>
#include <kj/common.h>
#include <kj/string.h>

#include <array>

#include "protocol/hello.h"
#include "protocol/noise/key-pair.h"
#include "protocol/random.h"
#include "protocol/secret.h"

namespace postern {

template <typename Owner>
struct PublicKeyOf {
  noise::PublicKey bytes{};
  bool operator==(const PublicKeyOf& other) const = default;
};
template <typename Owner>
struct KeyPairOf {
  noise::KeyPair pair;
  [[nodiscard]] PublicKeyOf<Owner> publicKey() const { return {pair.publicKey}; }
  static KeyPairOf generate(Random& random) {
    Secret<noise::KEY_BYTES> secret;
    random.fill(secret.asPtr());
    return {noise::KeyPair::from(kj::mv(secret))};
  }
};

struct HostSide {};
struct GuestSide {};
using HostPublicKey = PublicKeyOf<HostSide>;
using GuestPublicKey = PublicKeyOf<GuestSide>;
using HostKeyPair = KeyPairOf<HostSide>;
using GuestKeyPair = KeyPairOf<GuestSide>;

// Shared by the two ends of an enrolled pair; made by the host, brought by ACCEPT at enrolment.
struct LinkSecret {
  Secret<32> bytes;
  static LinkSecret generate(Random& random);
};

// One-time, 256 bits, made by the host for one VM; travels in the bundle.
struct EnrolmentToken {
  Secret<32> bytes;
  static EnrolmentToken generate(Random& random);
};

// The VM's UUID, as the host's registry and the guest's enrolment record have it. Never taken from the wire.
struct VmId {
  std::array<kj::byte, 16> bytes{};
  bool operator==(const VmId& other) const = default;
};

// What HELLO shows instead of a key: enough to choose between candidates, nothing to attack. First 8 bytes of BLAKE2b
// under a context string of its own.
Hint keyHint(const HostPublicKey& host, const GuestPublicKey& guest);
Hint tokenHint(const EnrolmentToken& token);

// What a person compares: the first 16 bytes of BLAKE2b of a public key, in hexadecimal, in groups of four digits.
kj::String fingerprint(const HostPublicKey& key);
kj::String fingerprint(const GuestPublicKey& key);

// A hedged ephemeral key pair: BLAKE2b(key = hedge key, random | peer nonce | own nonce | role), the hedge key being
// derived from the static secret key. Clones of one snapshot whose random generators are in the same state still get
// different keys, since the peer's nonce is fresh; and a broken generator alone does not give the key away.
noise::KeyPair hedgedEphemeral(const noise::KeyPair& staticKey, Random& random, const HelloPair& hellos);

}  // namespace postern
