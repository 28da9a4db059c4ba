#pragma once
// HandshakeState: one side of one Noise handshake (25519, ChaChaPoly), from the first message to the session's keys.
//
// Guarantees:
//  - No allocation, no system call, no randomness: all keys come from the caller, the fresh ephemeral one too.
//  - A peer's fault is a value. After the first one the state is dead: its keys are wiped, and every later message
//  gives
//    DEAD. A caller's fault (out of turn, buffer too small, key missing) is an exception, before anything has changed.
//  - A Diffie-Hellman result of zero (the peer sent a point of low order) ends the handshake. The specification leaves
//    this open (section 9.1); we refuse, so that no peer can choose a key's input.
//  - Private parts are wiped as soon as they are not needed: ephemeral key and psks after the last message, the
//    chaining key by split().
//
// Follows the Noise specification, revision 34. CipherState (5.1) is cipher-state.h, SymmetricState (5.2)
// symmetric-state.h, HandshakeState (5.3) this file: the constructor is Initialize(), with pre-messages (7.1) from
// pattern.h; writeMessage() and readMessage() are WriteMessage() and ReadMessage(); a psk handshake also mixes each
// ephemeral public key into the key (9.2); split() ends what WriteMessage() and ReadMessage() return at the last
// message; handshakeHash() is for channel binding (11.2). Validity of patterns (7.3, 9.3) is a property of the table.
// Not here: the prologue's content, what a transmitted static key is worth (both are the session's), transport
// messages.
//
// Lives inside a half-open link, whose whole budget is 4 KiB. On no loop: pure computation.

#include <kj/array.h>
#include <kj/common.h>
#include <kj/one-of.h>
#include <kj/string.h>

#include "protocol/noise/key-pair.h"
#include "protocol/noise/pattern.h"
#include "protocol/noise/symmetric-state.h"
#include "protocol/secret.h"

namespace postern::noise {

constexpr size_t MAX_MESSAGE_BYTES = 65535;  // section 3

// Why a handshake ended. For this end's log alone.
enum class HandshakeError {
  BAD_LENGTH,          // shorter than its fixed parts, longer than MAX_MESSAGE_BYTES, or payload over the room given
  BAD_TAG,             // changed on its way, or made with another key, psk or prologue
  ZERO_SHARED_SECRET,  // the peer's public key is a point of low order
  DEAD,                // failed earlier
};
kj::StringPtr describe(HandshakeError error);

// The keys of one side. Which of them must be there, and which must not, follows from the pattern: anything else is the
// caller's bug.
struct HandshakeKeys {
  // Fresh, used for this handshake alone; wiped by it. May come later, by provideEphemeral().
  kj::Maybe<KeyPair> ephemeral;
  kj::Maybe<const KeyPair&> ownStatic;       // borrowed: outlives the HandshakeState
  kj::Maybe<const PublicKey&> peerStatic;    // copied; only if the pattern has it as a pre-message
  kj::ArrayPtr<const Secret<32>> psks = {};  // copied; in the order of the modifiers' numbers
};

class HandshakeState {
 public:
  using Bytes = kj::ArrayPtr<const kj::byte>;

  HandshakeState(Pattern pattern, HashKind hash, Side side, Bytes prologue, HandshakeKeys keys);
  KJ_DISALLOW_COPY(HandshakeState);

  // Whose turn it is. isFinished(): all messages are through. A dead state is neither finished nor at any turn.
  bool isDead() const { return dead; }
  bool isFinished() const { return !dead && message == pattern.messageCount(); }
  bool isWriting() const { return isMyTurn(Turn::WRITE); }
  bool isReading() const { return isMyTurn(Turn::READ); }

  // Gives the ephemeral key, once, before this side's first message. A responder that waits with it until the first
  // message has been read pays for no key that a forged message would make useless.
  void provideEphemeral(KeyPair pair);

  // Bytes of the next message beside its payload: keys and tags. Only before the handshake is finished.
  size_t nextOverhead() const;

  // Writes the next message to the front of `out` and returns its size, nextOverhead() + payload.size(). `out` has room
  // for it and does not overlap `payload`. May fail through the peer's earlier key (ZERO_SHARED_SECRET).
  [[nodiscard]] kj::OneOf<size_t, HandshakeError> writeMessage(Bytes payload, kj::ArrayPtr<kj::byte> out);

  // Reads the next message, writes its payload to the front of `payloadOut` and returns the payload's size. A payload
  // that does not fit is BAD_LENGTH, so a caller that expects none gives no room. On failure `payloadOut` holds nothing
  // of the message. No overlap.
  [[nodiscard]] kj::OneOf<size_t, HandshakeError> readMessage(Bytes untrustedMessage,
                                                              kj::ArrayPtr<kj::byte> payloadOut);

  // The peer's static public key: given as pre-message, or received. Null before. A received one is proved to be the
  // peer's only by the messages that follow (section 7.7), in Postern's patterns: when isFinished().
  kj::Maybe<const PublicKey&> peerStatic() const;

  // Both only when finished, split() once.
  SessionKeys split();
  Bytes handshakeHash() const;

 private:
  enum class Turn { WRITE, READ };

  const Pattern pattern;
  const Side side;
  bool dead = false;
  bool hasPeerStatic = false;
  bool hasSplit = false;
  size_t message = 0;  // the next one's number
  size_t usedPsks = 0;
  const KeyPair* ownStatic = nullptr;
  KeyPair ephemeral;
  PublicKey peerStaticKey{};
  PublicKey peerEphemeral{};
  Secret<32> psks[MAX_PSKS];
  SymmetricState symmetric;

  bool isMyTurn(Turn turn) const;
  void takeKeys(HandshakeKeys keys);
  void mixPreMessages();
  void mixEphemeral(const PublicKey& key);
  void writeKey(Token token, kj::ArrayPtr<kj::byte>& rest);
  [[nodiscard]] bool readKey(Token token, Bytes& untrustedRest);
  kj::Maybe<HandshakeError> mixSecret(Token token);
  kj::Maybe<HandshakeError> mixSharedSecret(const KeyPair& own, const PublicKey& peer);
  HandshakeError fail(HandshakeError error);
  void finishMessage();
  void wipeEphemeralSecrets();
};

static_assert(sizeof(HandshakeState) < 1536, "a half-open link has 4 KiB in all");

}  // namespace postern::noise
