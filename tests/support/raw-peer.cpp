#include "tests/support/raw-peer.h"

#include <kj/debug.h>
#include <sodium.h>
#include <string.h>

#include "protocol/wire-int.h"

namespace postern::test {

namespace {

constexpr size_t TAG = crypto_aead_chacha20poly1305_ietf_ABYTES;

struct WireNonce {
  kj::byte bytes[12] = {};
  explicit WireNonce(uint64_t n) { putLittleEndian<uint64_t>(n, bytes + 4); }
};

void rekey(Secret<32>& key) {
  const kj::byte zeros[32] = {};
  kj::byte next[32 + TAG];
  crypto_aead_chacha20poly1305_ietf_encrypt(next, nullptr, zeros, sizeof(zeros), nullptr, 0, nullptr,
                                            WireNonce(~uint64_t(0)).bytes, key.begin());
  memcpy(key.begin(), next, 32);
}

void append(RawBytes& out, Bytes bytes) {
  out.insert(out.end(), bytes.begin(), bytes.end());
}

RawBytes helloFrame(const Hello& hello) {
  RawBytes frame(HELLO_FRAME_BYTES);
  auto view = kj::arrayPtr(frame.data(), frame.size());
  writeFrameHeader({HELLO_BYTES, FrameKind::HELLO, {}}, view);
  writeHello(hello, view.slice(FRAME_HEADER_BYTES, frame.size()));
  return frame;
}

}  // namespace

uint64_t RawRecord::number() const {
  uint64_t result = 0;
  for (size_t i = 0; i < std::min<size_t>(8, data.size()); ++i) result |= uint64_t(data[i]) << (8 * i);
  return result;
}

RawBytes innerBytes(uint8_t type, Bytes data, uint8_t flags, uint32_t channel, uint16_t padLength, size_t padBytes) {
  RawBytes inner(RECORD_HEADER_BYTES);
  inner[0] = type;
  inner[1] = flags;
  putLittleEndian<uint16_t>(padLength, &inner[2]);
  putLittleEndian<uint32_t>(channel, &inner[4]);
  append(inner, data);
  inner.resize(inner.size() + padBytes, 0x5a);
  return inner;
}

RawPeer::RawPeer(SessionLab& lab, Role self)
    : hello(self == Role::GUEST ? lab.guestHello : lab.hostHello),
      lab(lab),
      self(self),
      in(self == Role::GUEST ? lab.wire.toGuest : lab.wire.toHost),
      out(self == Role::GUEST ? lab.wire.toHost : lab.wire.toGuest) {
  if (self == Role::GUEST) describeCredentials(lab.guestCredentials, hello);
  lab.random.fill(kj::arrayPtr(hello.nonce.data(), hello.nonce.size()));
}

// Frames ---------------------------------------------------------------------------------------------------------

void RawPeer::pump() {
  lab.settle();
  kj::byte buffer[4096];
  for (;;) {
    auto result = in.read(buffer);
    if (result.state == PipeState::ENDED) closed = true;
    if (result.state != PipeState::OPEN || result.bytes == 0) return;
    append(unread, kj::arrayPtr(buffer, result.bytes));
    append(allHeard, kj::arrayPtr(buffer, result.bytes));
    lab.settle();  // there is room in the pipe again
  }
}

bool RawPeer::peerHasClosed() {
  pump();
  return closed;
}

void RawPeer::sendFrame(FrameKind kind, Bytes body) {
  RawBytes frame(FRAME_HEADER_BYTES);
  writeFrameHeader({static_cast<uint16_t>(body.size()), kind, tag}, kj::arrayPtr(frame.data(), frame.size()));
  append(frame, body);
  sendBytes(bytesOf(frame));
}

kj::Maybe<RawFrame> RawPeer::receiveFrame() {
  pump();
  if (unread.size() < FRAME_HEADER_BYTES) return nullptr;
  auto header = KJ_ASSERT_NONNULL(parseFrameHeader(bytesOf(unread)));
  size_t whole = FRAME_HEADER_BYTES + header.bodyLength;
  if (unread.size() < whole) return nullptr;
  KJ_ASSERT(header.kind == FrameKind::HELLO || header.tag == tag);
  auto end = unread.begin() + static_cast<std::ptrdiff_t>(whole);
  RawFrame frame{header.kind, RawBytes(unread.begin() + FRAME_HEADER_BYTES, end)};
  unread.erase(unread.begin(), end);
  return kj::mv(frame);
}

// The way to a session -------------------------------------------------------------------------------------------

bool RawPeer::isEnrolment() const {
  return (self == Role::GUEST ? hello : peerHello).patterns == PATTERN_XXPSK0;
}

void RawPeer::sendHello() {
  auto frame = helloFrame(hello);
  ownHelloBytes.assign(frame.begin() + FRAME_HEADER_BYTES, frame.end());
  sendBytes(bytesOf(frame));
}

bool RawPeer::receiveHello() {
  KJ_IF_MAYBE (frame, receiveFrame()) {
    KJ_ASSERT(frame->kind == FrameKind::HELLO);
    peerHelloBytes = frame->body;
    peerHello = parseHello(bytesOf(peerHelloBytes), hello).get<Hello>();
    bool isGuest = self == Role::GUEST;
    tag = linkTag(isGuest ? peerHello.nonce : hello.nonce, isGuest ? hello.nonce : peerHello.nonce);
    return true;
  }
  return false;
}

void RawPeer::beginNoise() {
  bool isGuest = self == Role::GUEST;
  bool enrolling = isEnrolment();
  RawBytes prologue = copyOf("postern/1 session"_kj.asBytes());
  prologue.push_back(0);
  kj::byte fields[8];
  putLittleEndian<uint32_t>(enrolling ? PATTERN_XXPSK0 : PATTERN_KKPSK0, fields);
  putLittleEndian<uint32_t>(SUITE_CHACHAPOLY_BLAKE2B, fields + 4);
  append(prologue, fields);
  append(prologue, kj::arrayPtr(lab.vm.bytes.data(), lab.vm.bytes.size()));
  prologue.push_back(1);
  append(prologue, bytesOf(isGuest ? ownHelloBytes : peerHelloBytes).slice(0, 96));
  append(prologue, bytesOf(isGuest ? peerHelloBytes : ownHelloBytes).slice(0, 96));

  noise::HandshakeKeys keys;
  Secret<32> psk;
  if (isGuest && enrolling) {
    auto& own = lab.guestCredentials.get<GuestEnrolment>();
    keys.ownStatic = own.own.pair;
    psk = own.token.bytes.clone();
  } else if (isGuest) {
    auto& own = lab.guestCredentials.get<GuestIdentity>();
    keys.ownStatic = own.own.pair;
    keys.peerStatic = own.host.bytes;
    psk = own.linkSecret.bytes.clone();
  } else if (enrolling) {
    auto& own = KJ_ASSERT_NONNULL(lab.keyring.enrolment);
    keys.ownStatic = own.own.pair;
    psk = own.token.bytes.clone();
  } else {
    auto& own = KJ_ASSERT_NONNULL(lab.keyring.identity);
    keys.ownStatic = own.own.pair;
    keys.peerStatic = own.guest.bytes;
    psk = own.linkSecret.bytes.clone();
  }
  keys.psks = kj::arrayPtr(&psk, 1);
  Secret<32> fresh;
  lab.random.fill(fresh.asPtr());
  auto ephemeralKey = noise::KeyPair::from(kj::mv(fresh));
  KJ_IF_MAYBE (shown, shownEphemeral) ephemeralKey.publicKey = *shown;
  keys.ephemeral = kj::mv(ephemeralKey);
  noise.emplace(KJ_ASSERT_NONNULL(noise::Pattern::parse(enrolling ? "XXpsk0"_kj : "KKpsk0"_kj)),
                noise::HashKind::BLAKE2B, isGuest ? noise::Side::INITIATOR : noise::Side::RESPONDER, bytesOf(prologue),
                kj::mv(keys));
}

void RawPeer::sendHandshake(Bytes payload) {
  kj::byte message[1024];
  auto size = KJ_ASSERT_NONNULL(noise).writeMessage(payload, message).get<size_t>();
  sendFrame(FrameKind::HANDSHAKE, kj::arrayPtr(message, size));
}

bool RawPeer::receiveHandshake() {
  KJ_IF_MAYBE (frame, receiveFrame()) {
    KJ_ASSERT(frame->kind == FrameKind::HANDSHAKE);
    return KJ_ASSERT_NONNULL(noise).readMessage(bytesOf(frame->body), nullptr).is<size_t>();
  }
  return false;
}

void RawPeer::takeKeys() {
  auto keys = KJ_ASSERT_NONNULL(noise).split();
  bool isGuest = self == Role::GUEST;
  sendKey = kj::mv(isGuest ? keys.initiatorToResponder : keys.responderToInitiator);
  receiveKey = kj::mv(isGuest ? keys.responderToInitiator : keys.initiatorToResponder);
}

void RawPeer::shakeHands() {
  sendHello();
  KJ_ASSERT(receiveHello());
  beginNoise();
  auto& state = KJ_ASSERT_NONNULL(noise);
  while (!state.isFinished()) {
    if (state.isWriting()) {
      sendHandshake();
    } else {
      KJ_ASSERT(receiveHandshake());
    }
  }
  takeKeys();
}

void RawPeer::confirm() {
  if (self == Role::GUEST) {
    send(RecordType::CONFIRM, encodeConfirmation(lab.confirmation));
    return;
  }
  auto confirmed = KJ_ASSERT_NONNULL(receive());
  KJ_ASSERT(confirmed.is(RecordType::CONFIRM));
  Acceptance acceptance;
  if (isEnrolment()) acceptance.linkSecret = LinkSecret::generate(lab.random);
  send(RecordType::CONFIRM, encodeAcceptance(acceptance));
}

// Records --------------------------------------------------------------------------------------------------------

RawBytes RawPeer::seal(Bytes inner) {
  RawBytes frame(FRAME_HEADER_BYTES + inner.size() + TAG);
  writeFrameHeader({static_cast<uint16_t>(inner.size() + TAG), FrameKind::RECORD, tag},
                   kj::arrayPtr(frame.data(), frame.size()));
  crypto_aead_chacha20poly1305_ietf_encrypt(&frame[FRAME_HEADER_BYTES], nullptr, inner.begin(), inner.size(), nullptr,
                                            0, nullptr, WireNonce(sendNonce++).bytes, sendKey.begin());
  return frame;
}

void RawPeer::sendInner(Bytes inner) {
  auto frame = seal(inner);
  sendBytes(bytesOf(frame));
}

void RawPeer::send(RecordType type, Bytes data, uint8_t flags, uint32_t channel) {
  auto inner = innerBytes(uint8_t(type), data, flags, channel);
  sendInner(bytesOf(inner));
}

void RawPeer::sendNumber(RecordType type, uint64_t number) {
  kj::byte data[8];
  putLittleEndian<uint64_t>(number, data);
  send(type, data);
}

void RawPeer::sendCredit(uint32_t channel, uint32_t amount) {
  kj::byte data[4];
  putLittleEndian<uint32_t>(amount, data);
  send(RecordType::BULK, data, BULK_CREDIT, channel);
}

void RawPeer::sendRekey() {
  send(RecordType::REKEY);
  rekey(sendKey);
}

kj::Maybe<RawRecord> RawPeer::receive() {
  KJ_IF_MAYBE (frame, receiveFrame()) {
    KJ_ASSERT(frame->kind == FrameKind::RECORD && frame->body.size() >= TAG + RECORD_HEADER_BYTES);
    RawBytes inner(frame->body.size() - TAG);
    int result = crypto_aead_chacha20poly1305_ietf_decrypt(inner.data(), nullptr, nullptr, frame->body.data(),
                                                           frame->body.size(), nullptr, 0,
                                                           WireNonce(receiveNonce++).bytes, receiveKey.begin());
    KJ_ASSERT(result == 0, "the real end sent what does not open");
    RawRecord record{inner[0], inner[1], getLittleEndian<uint16_t>(&inner[2]), getLittleEndian<uint32_t>(&inner[4]),
                     RawBytes(inner.begin() + RECORD_HEADER_BYTES, inner.end())};
    if (record.is(RecordType::REKEY)) rekey(receiveKey);
    return kj::mv(record);
  }
  return nullptr;
}

std::vector<RawRecord> RawPeer::receiveAll() {
  std::vector<RawRecord> all;
  for (;;) {
    KJ_IF_MAYBE (record, receive()) {
      all.push_back(kj::mv(*record));
    } else {
      return all;
    }
  }
}

// Meeting --------------------------------------------------------------------------------------------------------

RawMeeting::RawMeeting(Role real, Phase phase)
    : peer((phase == Phase::ENROLMENT ? lab.useEnrolment() : void(), lab),
           real == Role::GUEST ? Role::HOST : Role::GUEST) {
  if (real == Role::HOST) {
    auto outcome = lab.startHost(lab.wire.hostEnd()).eagerlyEvaluate(nullptr);
    peer.shakeHands();
    peer.confirm();
    auto result = outcome.wait(lab.waitScope);
    auto& incoming = *result.get<kj::Own<IncomingSession>>();
    Acceptance acceptance;
    if (incoming.isEnrolment()) acceptance.linkSecret = LinkSecret::generate(lab.random);
    session = incoming.accept(acceptance);
    KJ_ASSERT(KJ_ASSERT_NONNULL(peer.receive()).is(RecordType::CONFIRM));
  } else {
    auto outcome = lab.startGuest(lab.wire.guestEnd()).eagerlyEvaluate(nullptr);
    peer.shakeHands();
    peer.confirm();
    auto result = outcome.wait(lab.waitScope);
    session = kj::mv(result.get<GuestSession>().session);
  }
  lab.settle();
}

SessionEnd RawMeeting::end() {
  lab.settle();
  KJ_ASSERT(session->isOver(), "the session goes on");
  return session->onEnd().wait(lab.waitScope);
}

}  // namespace postern::test
