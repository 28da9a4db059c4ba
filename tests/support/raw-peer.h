#pragma once
// RawPeer: a peer without manners. It speaks HELLO, the handshake and records byte by byte over a FakeWire, so that a
// test can send what a Session never would: authentic records with any content, handshake messages with a payload,
// ephemeral keys of low order, frames out of turn.
//
// It shares the Noise engine and the HELLO codec with the real ends; prologue, record sealing and rekeying are written
// here once more from docs/PROTOCOL.md, so that a real end which changed them would not find a peer.
//
// No promises: each receive first turns the lab's loop until nothing is left to do.

#include <stdint.h>

#include <deque>
#include <vector>

#include "protocol/confirmation.h"
#include "protocol/noise/handshake-state.h"
#include "protocol/record.h"
#include "tests/support/session-lab.h"

namespace postern::test {

using RawBytes = std::vector<kj::byte>;
using Bytes = kj::ArrayPtr<const kj::byte>;

inline Bytes bytesOf(const RawBytes& bytes) {
  return kj::arrayPtr(bytes.data(), bytes.size());
}
inline RawBytes copyOf(Bytes bytes) {
  return RawBytes(bytes.begin(), bytes.end());
}

// An inner record as bytes, whatever its fields say.
RawBytes innerBytes(uint8_t type, Bytes data, uint8_t flags = 0, uint32_t channel = 0, uint16_t padLength = 0,
                    size_t padBytes = 0);

struct RawRecord {
  uint8_t type;
  uint8_t flags;
  uint16_t padLength;
  uint32_t channel;
  RawBytes data;  // padding included

  bool is(RecordType wanted) const { return type == uint8_t(wanted); }
  uint64_t number() const;  // of the data's first 8 (or fewer) bytes, little-endian
};

struct RawFrame {
  FrameKind kind;
  RawBytes body;
};

class RawPeer {
 public:
  // Takes the keys that the lab's real ends have; spoil the lab's before, or this peer's choices below.
  RawPeer(SessionLab& lab, Role self);

  // Spoil before they are used.
  Hello hello;
  LinkTag tag{};
  kj::Maybe<noise::PublicKey> shownEphemeral;  // sent in place of the true public half

  // Frames. ----------------------------------------------------------------------------------------------------
  void sendBytes(Bytes bytes) { out.inject(bytes); }
  void sendFrame(FrameKind kind, Bytes body);
  // The next frame that the real end has sent; null when it has sent none.
  kj::Maybe<RawFrame> receiveFrame();
  bool peerHasClosed();
  // Bytes that came from the real end so far.
  const RawBytes& heard() const { return allHeard; }

  // The way to a session. --------------------------------------------------------------------------------------
  void sendHello();
  bool receiveHello();  // false when the peer closed instead
  void beginNoise();
  void sendHandshake(Bytes payload = nullptr);
  bool receiveHandshake();
  bool handshakeIsDone() const { return KJ_ASSERT_NONNULL(noise).isFinished(); }
  void takeKeys();
  // HELLOs and all handshake messages; fails the test if the other end does not go along.
  void shakeHands();
  // Guest: CONFIRM and ACCEPT; host: likewise.
  void confirm();

  // Records. ---------------------------------------------------------------------------------------------------
  // The frame of an inner record, sealed with the next nonce. sendInner() sends it.
  RawBytes seal(Bytes inner);
  void sendInner(Bytes inner);
  void send(RecordType type, Bytes data = nullptr, uint8_t flags = 0, uint32_t channel = 0);
  void sendNumber(RecordType type, uint64_t number);
  void sendCredit(uint32_t channel, uint32_t amount);
  // A REKEY record, and the key behind it.
  void sendRekey();
  // Opened; a REKEY is reported and followed. Null when there is none; fails the test if one does not open.
  kj::Maybe<RawRecord> receive();
  std::vector<RawRecord> receiveAll();

 private:
  SessionLab& lab;
  const Role self;
  FakeDirection& in;
  FakeDirection& out;
  Hello peerHello;
  RawBytes ownHelloBytes;
  RawBytes peerHelloBytes;
  kj::Maybe<noise::HandshakeState> noise;
  noise::KeyPair ephemeral;
  Secret<32> sendKey, receiveKey;
  uint64_t sendNonce = 0, receiveNonce = 0;
  RawBytes unread;
  RawBytes allHeard;
  bool closed = false;

  bool isEnrolment() const;
  void pump();
};

enum class Phase { SESSION, ENROLMENT };

// A real session at one end and a RawPeer at the other, past ACCEPT. In an enrolment, before the commit.
struct RawMeeting {
  explicit RawMeeting(Role real, Phase phase = Phase::SESSION);

  SessionLab lab;
  RawPeer peer;
  kj::Own<Session> session;

  void settle() { lab.settle(); }
  // The session's end; fails the test if it has not ended.
  SessionEnd end();
};

}  // namespace postern::test
