#pragma once
// HELLO: the first 112 bytes that each end sends, in the clear, before Noise. Nothing in it is trusted: all but the
// last 16 bytes goes into both ends' Noise prologue, so a changed byte makes the handshake fail at both ends. It says
// what an end can do and brings a fresh nonce, which makes a replayed first message worthless.
//
//   offset size
//        0    4  magic "PSTN"
//        4    1  lowest protocol version spoken          5    1  highest
//        6    1  role of the sender: 1 guest, 2 host     7    1  transport as the sender sees it (TransportKind)
//        8    4  suites, a bit each (LE)                12    4  patterns, a bit each (LE)
//       16   32  nonce, fresh for each HELLO (serial: for each epoch)
//       48    8  key hint: which identity (keys.h); zero when none
//       56    8  token hint: which enrolment token; zero when none
//       64   32  reserved: sent as zero, not looked at (but in the prologue)
//       96    8  echo: serial, the first 8 bytes of the peer's nonce as last heard; else zero
//      104    1  serial: 1 when a reply is wanted; else 0
//      105    3  zero
//      108    4  CRC-32C of bytes 0..107 (LE); catches line noise, not an attacker

#include <kj/array.h>
#include <kj/common.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <stdint.h>

#include <array>

#include "protocol/frame.h"

namespace postern {

constexpr size_t HELLO_BYTES = 112;
constexpr size_t HELLO_FRAME_BYTES = FRAME_HEADER_BYTES + HELLO_BYTES;
// What of a HELLO goes into the prologue: all before echo, reply and CRC, which change between repeats of one HELLO.
constexpr size_t HELLO_PROLOGUE_BYTES = 96;

constexpr uint8_t PROTOCOL_VERSION = 1;

enum class Role : uint8_t { GUEST = 1, HOST = 2 };
enum class TransportKind : uint8_t { UNIX = 1, HYBRID = 2, SERIAL = 3, VSOCK = 4 };

// Bits of Hello::suites. AES-256-GCM is reserved and not built (libsodium's is no faster where it matters).
constexpr uint32_t SUITE_CHACHAPOLY_BLAKE2B = 1u << 0;
constexpr uint32_t SUITE_AESGCM_BLAKE2B = 1u << 1;
// Bits of Hello::patterns.
constexpr uint32_t PATTERN_KKPSK0 = 1u << 0;
constexpr uint32_t PATTERN_XXPSK0 = 1u << 1;

using Nonce = std::array<kj::byte, 32>;
using Hint = std::array<kj::byte, 8>;
using Epoch = std::array<kj::byte, 8>;

struct Hello {
  uint8_t versionMin = PROTOCOL_VERSION;
  uint8_t versionMax = PROTOCOL_VERSION;
  Role role = Role::GUEST;
  TransportKind transport = TransportKind::UNIX;
  uint32_t suites = SUITE_CHACHAPOLY_BLAKE2B;
  uint32_t patterns = 0;
  Nonce nonce{};
  Hint keyHint{};
  Hint tokenHint{};
  // Serial link only.
  Epoch echo{};
  bool replyWanted = false;

  Epoch epoch() const;  // the first 8 bytes of the nonce
};

// Both HELLOs of a connection, each as sent and received: the prologue takes the bytes, reserved ones included.
struct HelloPair {
  Role self;
  Hello own;
  Hello peer;
  std::array<kj::byte, HELLO_PROLOGUE_BYTES> ownBytes;
  std::array<kj::byte, HELLO_PROLOGUE_BYTES> peerBytes;

  const Hello& guest() const { return self == Role::GUEST ? own : peer; }
  const Hello& host() const { return self == Role::HOST ? own : peer; }
  kj::ArrayPtr<const kj::byte> guestBytes() const;
  kj::ArrayPtr<const kj::byte> hostBytes() const;
};

// Why a HELLO is none. For this end's log alone.
enum class HelloError {
  BAD_LENGTH,
  BAD_MAGIC,
  BAD_CRC,
  BAD_FIELD,   // a role, transport, reply bit or zero byte that this version does not define
  SAME_ROLE,   // two guests or two hosts
  NO_VERSION,  // no common protocol version
};
kj::StringPtr describe(HelloError error);

void writeHello(const Hello& hello, kj::ArrayPtr<kj::byte> out);  // out: HELLO_BYTES

// Checks all that can be checked of a HELLO by itself, and that the peer has the other role and a version in common
// with us (`own`). Suites and patterns are chosen later, by the handshake.
kj::OneOf<Hello, HelloError> parseHello(kj::ArrayPtr<const kj::byte> untrusted, const Hello& own);

// First 4 bytes of BLAKE2b(host nonce | guest nonce).
LinkTag linkTag(const Nonce& hostNonce, const Nonce& guestNonce);
LinkTag linkTag(const HelloPair& hellos);

// Assembles the pair; `peerBytes` are the HELLO_BYTES as received.
HelloPair pairHellos(const Hello& own, const Hello& peer, kj::ArrayPtr<const kj::byte> peerBytes);

}  // namespace postern
