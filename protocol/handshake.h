#pragma once
// Handshake: one end's way from two HELLOs to a session's keys. Takes and gives bodies of HANDSHAKE frames; no I/O, no
// clock. The guest is always the Noise initiator, whoever opened the transport.
//
//   guest                                   host
//   HS 1   KKpsk0: psk, e, es, ss           XXpsk0: psk, e
//   HS 2                                    KKpsk0: e, ee, se     XXpsk0: e, ee, s, es
//   HS 3   XXpsk0: s, se
//
// Version, suite and pattern are a pure function of both HELLOs, and everything said in them is in the prologue:
//   "postern/1 session" with its zero byte | u32 pattern bit | u32 suite bit | VM uuid[16] | u8 1 (guest initiates)
//   | 96 bytes of the guest's HELLO | 96 bytes of the host's
// so whoever changes a byte on the way makes the handshake fail at both ends. The uuid comes from the channel (host)
// and the enrolment record (guest), never from the wire: a cloned disk on another VM's channel fails.
//
// Order of the host's checks: suite and pattern, hint known, then Diffie-Hellman. (Frame size and version were checked
// before there is a Handshake; the token bucket is admission's.)

#include <kj/array.h>
#include <kj/one-of.h>

#include "protocol/credentials.h"
#include "protocol/hello.h"
#include "protocol/noise/handshake-state.h"
#include "protocol/random.h"
#include "protocol/record-cipher.h"

namespace postern {

// Why a handshake was refused. For this end's log and counters; the peer is told nothing.
enum class HandshakeRefusal {
  NO_COMMON_SUITE,
  NO_COMMON_PATTERN,   // or the guest's HELLO names not exactly one
  UNKNOWN_HINT,        // no identity or token of this VM fits
  BAD_LENGTH,          // also: a payload where none may be
  BAD_TAG,             // wrong key, psk, uuid, or a changed byte
  ZERO_SHARED_SECRET,  // point of low order
  UNEXPECTED_MESSAGE,  // more messages than the pattern has, or out of turn
  WRONG_HOST_KEY,      // enrolment: authentic, but not the key of the bundle
  WRONG_GUEST_KEY,     // enrolment: the token is bound to another guest's key: event `token-reuse`
};
kj::StringPtr describe(HandshakeRefusal refusal);

// A finished handshake.
struct HandshakeResult {
  bool enrolment;  // XXpsk0: only CLOSE and COMMIT records are legal until the commit
  SealingKey sealing;
  OpeningKey opening;
  std::array<kj::byte, 64> handshakeHash;  // for channel binding
  HostPublicKey host;
  GuestPublicKey guest;
};

class Handshake {
 public:
  using Bytes = kj::ArrayPtr<const kj::byte>;
  // The longest message is XXpsk0's second: e, encrypted s, tag.
  static constexpr size_t MAX_MESSAGE_BYTES = 32 + 32 + TAG_BYTES + TAG_BYTES;
  struct Message {
    kj::byte bytes[MAX_MESSAGE_BYTES];
    size_t size = 0;
    Bytes asPtr() const { return kj::arrayPtr(bytes, size); }
  };

  // Either refuses at once or gives a handshake that is ready for its first message. Credentials are borrowed and
  // outlive it.
  static kj::OneOf<kj::Own<Handshake>, HandshakeRefusal> begin(const HelloPair& hellos,
                                                               const GuestCredentials& credentials, Random& random);
  static kj::OneOf<kj::Own<Handshake>, HandshakeRefusal> begin(const HelloPair& hellos, HostKeyring& keyring,
                                                               Random& random);

  // Whether it is this end's turn; then write() gives the message to send. Otherwise read() takes the peer's.
  bool isWriting() const { return noise.isWriting(); }
  bool isFinished() const { return noise.isFinished(); }
  // Enrolment: read() also compares the peer's key, as soon as it is proved, with the one that is pinned, so that a
  // guest does not show its own key to a host that is not the bundle's.
  [[nodiscard]] kj::OneOf<Message, HandshakeRefusal> write();
  [[nodiscard]] kj::Maybe<HandshakeRefusal> read(Bytes untrustedMessage);

  // Once, when finished.
  [[nodiscard]] HandshakeResult finish();

  struct Parts;  // what begin() puts together; see the source
  explicit Handshake(Parts&& parts);

 private:
  const HelloPair& pair;
  bool enrolment;
  const noise::KeyPair& ownStatic;
  Random& random;
  bool hasEphemeral = false;
  kj::Maybe<noise::PublicKey> pinnedPeer;  // enrolment only
  noise::HandshakeState noise;
};

}  // namespace postern
