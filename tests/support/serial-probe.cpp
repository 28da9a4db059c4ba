#include "tests/support/serial-probe.h"

#include <kj/debug.h>
#include <string.h>

namespace postern::test {

Hello guestHello(kj::byte nonceByte, Epoch echo, bool replyWanted) {
  Hello hello = helloOf(Role::GUEST);
  hello.transport = TransportKind::SERIAL;
  hello.nonce.fill(nonceByte);
  hello.echo = echo;
  hello.replyWanted = replyWanted;
  return hello;
}

kj::Array<kj::byte> syncOf(const Hello& hello) {
  auto bytes = kj::heapArray<kj::byte>(SYNC_BYTES);
  memcpy(bytes.begin(), SYNC_WORD.data(), SYNC_WORD_BYTES);
  auto frame = bytes.slice(SYNC_WORD_BYTES, SYNC_BYTES);
  writeFrameHeader({HELLO_BYTES, FrameKind::HELLO, {}}, frame);
  writeHello(hello, frame.slice(FRAME_HEADER_BYTES, frame.size()));
  return bytes;
}

kj::Array<kj::byte> frameOf(FrameKind kind, LinkTag tag, kj::ArrayPtr<const kj::byte> body) {
  auto bytes = kj::heapArray<kj::byte>(FRAME_HEADER_BYTES + body.size());
  writeFrameHeader({static_cast<uint16_t>(body.size()), kind, tag}, bytes);
  if (body.size() > 0) memcpy(bytes.begin() + FRAME_HEADER_BYTES, body.begin(), body.size());
  return bytes;
}

kj::Array<kj::byte> filled(size_t bytes, kj::byte value) {
  auto result = kj::heapArray<kj::byte>(bytes);
  memset(result.begin(), value, bytes);
  return result;
}

kj::Array<kj::byte> randomBytes(size_t bytes, uint64_t seed) {
  auto result = kj::heapArray<kj::byte>(bytes);
  TestRandom(seed).fill(result);
  return result;
}

kj::Array<kj::byte> joined(std::initializer_list<kj::ArrayPtr<const kj::byte>> parts) {
  kj::Vector<kj::byte> all;
  for (auto& part : parts) all.addAll(part);
  return all.releaseAsArray();
}

kj::Array<Hello> parseSyncs(kj::ArrayPtr<const kj::byte> bytes, Role reader) {
  kj::Vector<Hello> hellos;
  KJ_ASSERT(bytes.size() % SYNC_BYTES == 0, bytes.size());
  for (size_t at = 0; at < bytes.size(); at += SYNC_BYTES) {
    auto sync = bytes.slice(at, at + SYNC_BYTES);
    KJ_ASSERT(memcmp(sync.begin(), SYNC_WORD.data(), SYNC_WORD_BYTES) == 0);
    auto header =
        KJ_ASSERT_NONNULL(parseFrameHeader(sync.slice(SYNC_WORD_BYTES, SYNC_WORD_BYTES + FRAME_HEADER_BYTES)));
    KJ_ASSERT(header.kind == FrameKind::HELLO && header.bodyLength == HELLO_BYTES && header.tag == LinkTag{});
    auto hello = parseHello(sync.slice(SYNC_WORD_BYTES + FRAME_HEADER_BYTES, SYNC_BYTES), helloOf(reader));
    KJ_ASSERT(hello.is<Hello>());
    hellos.add(hello.get<Hello>());
  }
  return hellos.releaseAsArray();
}

SerialProbe::SerialProbe()
    : waitScope(loop),
      timer(kj::origin<kj::TimePoint>()),
      random(7),
      pipe(wire.toHost, wire.toGuest),
      link(pipe, helloOf(Role::HOST), random, timer, scratch) {}

void SerialProbe::accept() {
  connection = nullptr;
  acceptEnd = nullptr;
  accepting = link.accept()
                  .then([this](kj::OneOf<kj::Own<FrameLink>, LinkEnd> accepted) {
                    if (accepted.is<LinkEnd>()) {
                      acceptEnd = accepted.get<LinkEnd>();
                    } else {
                      connection = kj::mv(accepted.get<kj::Own<FrameLink>>());
                    }
                  })
                  .eagerlyEvaluate([](kj::Exception&& e) { kj::throwFatalException(kj::mv(e)); });
  run();
}

FrameLink& SerialProbe::session() {
  return *KJ_ASSERT_NONNULL(connection);
}

void SerialProbe::run() {
  loop.run(1'000'000);
  KJ_ASSERT(!loop.isRunnable(), "a loop that never rests");
  spoilScratch();
}

void SerialProbe::advance(kj::Duration time) {
  timer.advanceTo(timer.now() + time);
  run();
}

void SerialProbe::send(kj::ArrayPtr<const kj::byte> bytes) {
  wire.toHost.inject(bytes);
  run();
}

kj::Array<Hello> SerialProbe::heard() {
  return parseSyncs(written(), Role::GUEST);
}

void SerialProbe::bringUp(kj::byte nonceByte) {
  send(syncOf(guestHello(nonceByte, {}, true)));
  auto hellos = heard();
  KJ_ASSERT(hellos.size() > 0);
  send(syncOf(guestHello(nonceByte, hellos.back().epoch())));
  KJ_ASSERT(isUp());
  KJ_ASSERT(heard().size() == 0);
}

LinkTag SerialProbe::tag() {
  return linkTag(session().hellos());
}

Frame SerialProbe::frame() {
  auto item = session().readFrame();
  KJ_ASSERT(item.is<Frame>());
  return item.get<Frame>();
}

bool SerialProbe::nothingToRead() {
  return session().readFrame().is<NoFrame>();
}

kj::Maybe<LinkEnd> SerialProbe::end() {
  auto item = session().readFrame();
  if (!item.is<LinkEnd>()) return nullptr;
  auto first = item.get<LinkEnd>();
  KJ_ASSERT(session().readFrame().get<LinkEnd>() == first, "an end that does not last");
  return first;
}

void SerialProbe::spoilScratch() {
  memset(scratch.buffer().begin(), 0xdd, scratch.buffer().size());
}

}  // namespace postern::test
