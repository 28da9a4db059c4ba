// The answers' half of broker-wire.h.
#include <kj/debug.h>
#include <kj/vector.h>
#include <string.h>

#include "guest-agent/bounded-text.h"
#include "guest-agent/broker/broker-wire.h"

namespace postern::guest {

namespace {

// The wire form, without padding, followed by the payload.
struct WireAnswer {
  uint64_t number;
  uint32_t outcome;
  uint32_t flag;  // 0 or 1
  Answer::ConnectionKind connection;
  uint32_t payloadBytes;
};
static_assert(sizeof(WireAnswer) <= MAX_ANSWER_BYTES - MAX_ANSWER_PAYLOAD);

}  // namespace

kj::OneOf<Answer, WireError> parseAnswer(kj::ArrayPtr<const kj::byte> bytes) {
  WireError bad{"an answer is malformed"_kj};
  if (bytes.size() < sizeof(WireAnswer)) return bad;
  WireAnswer wire;
  memcpy(&wire, bytes.begin(), sizeof(wire));
  auto payload = bytes.slice(sizeof(WireAnswer), bytes.size());
  if (wire.payloadBytes != payload.size() || wire.payloadBytes > MAX_ANSWER_PAYLOAD || wire.flag > 1 ||
      wire.outcome > uint32_t(Answer::Outcome::CANCELLED)) {
    return bad;
  }
  return Answer{wire.number, Answer::Outcome(wire.outcome), wire.flag == 1, wire.connection, kj::heapArray(payload)};
}

kj::Array<kj::byte> answerBytes(const Answer& answer) {
  KJ_REQUIRE(answer.payload.size() <= MAX_ANSWER_PAYLOAD);
  WireAnswer wire{answer.number, uint32_t(answer.outcome), answer.flag ? 1u : 0u, answer.connection,
                  uint32_t(answer.payload.size())};
  auto bytes = kj::heapArray<kj::byte>(sizeof(wire) + answer.payload.size());
  memcpy(bytes.begin(), &wire, sizeof(wire));
  if (answer.payload.size() > 0) memcpy(bytes.begin() + sizeof(wire), answer.payload.begin(), answer.payload.size());
  return bytes;
}

kj::Array<kj::byte> textsPayload(kj::ArrayPtr<const kj::String> texts) {
  kj::Vector<kj::byte> payload;
  for (auto& text : texts.slice(0, kj::min(texts.size(), MAX_TEXTS))) {
    auto bounded = boundedText(text, MAX_TEXT_BYTES);
    payload.addAll(bounded.asBytes());
    payload.add(0);
  }
  return payload.releaseAsArray();
}

kj::Array<kj::String> textsOf(kj::ArrayPtr<const kj::byte> payload) {
  kj::Vector<kj::String> texts;
  size_t begin = 0;
  for (size_t i = 0; i < payload.size() && texts.size() < MAX_TEXTS; ++i) {
    if (payload[i] != 0) continue;
    texts.add(boundedText(payload.slice(begin, i).asChars(), MAX_TEXT_BYTES));
    begin = i + 1;
  }
  return texts.releaseAsArray();
}

namespace {

constexpr kj::StringPtr FILES_REFUSALS[] = {"failed"_kj, "denied"_kj, "busy"_kj};
constexpr kj::StringPtr SERVICE_REFUSALS[] = {"not-reached"_kj, "denied"_kj, "not-exported"_kj, "busy"_kj};

template <typename Refusal, size_t count>
kj::Array<kj::byte> refusalPayload(const Refusal& refusal, const kj::StringPtr (&kinds)[count]) {
  kj::String texts[] = {kj::str(kinds[size_t(refusal.kind)]), kj::str(refusal.text), kj::str(refusal.rule)};
  return textsPayload(texts);
}

// Of the first kind if the payload is none.
template <typename Refusal, size_t count>
Refusal refusalOf(kj::ArrayPtr<const kj::byte> payload, const kj::StringPtr (&kinds)[count]) {
  auto texts = textsOf(payload);
  for (size_t i = 0; i < count && texts.size() == 3; ++i) {
    if (texts[0] == kinds[i]) {
      return {typename Refusal::Kind(uint8_t(i)), kj::mv(texts[1]), kj::mv(texts[2])};
    }
  }
  return {typename Refusal::Kind(), boundedText(payload.asChars(), MAX_TEXT_BYTES), kj::String()};
}

}  // namespace

kj::Array<kj::byte> filesRefusalPayload(const FilesRefusal& refusal) {
  return refusalPayload(refusal, FILES_REFUSALS);
}
FilesRefusal filesRefusalOf(kj::ArrayPtr<const kj::byte> payload) {
  return refusalOf<FilesRefusal>(payload, FILES_REFUSALS);
}

kj::Array<kj::byte> serviceRefusalPayload(const ServiceRefusal& refusal) {
  return refusalPayload(refusal, SERVICE_REFUSALS);
}
ServiceRefusal serviceRefusalOf(kj::ArrayPtr<const kj::byte> payload) {
  return refusalOf<ServiceRefusal>(payload, SERVICE_REFUSALS);
}

Answer::ConnectionKind describe(const Connection& connection) {
  Answer::ConnectionKind kind{uint32_t(connection.transport), uint32_t(connection.descriptorKind), 0, 0, 0};
  KJ_SWITCH_ONEOF(connection.peer) {
    KJ_CASE_ONEOF(unix, UnixPeer) {
      kind.peerKind = 1;
      kind.peerFirst = unix.uid;
      kind.peerSecond = uint32_t(unix.pid);
    }
    KJ_CASE_ONEOF(vsock, VsockPeer) {
      kind.peerKind = 2;
      kind.peerFirst = vsock.cid;
      kind.peerSecond = vsock.port;
    }
    KJ_CASE_ONEOF(unknown, UnknownPeer) {}
  }
  return kind;
}

kj::Maybe<Connection> connectionOf(Answer::ConnectionKind kind, kj::AutoCloseFd fd) {
  if (kind.transport < uint32_t(TransportKind::UNIX) || kind.transport > uint32_t(TransportKind::VSOCK) ||
      kind.descriptorKind > uint32_t(DescriptorKind::SERIAL_DEVICE) || kind.peerKind > 2) {
    return nullptr;
  }
  PeerAddress peer = UnknownPeer{};
  if (kind.peerKind == 1) peer = UnixPeer{kind.peerFirst, pid_t(kind.peerSecond)};
  if (kind.peerKind == 2) peer = VsockPeer{kind.peerFirst, kind.peerSecond};
  return Connection{TransportKind(kind.transport), DescriptorKind(kind.descriptorKind), peer, kj::mv(fd)};
}

}  // namespace postern::guest
