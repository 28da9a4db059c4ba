#include "tests/support/serial-end.h"

#include <kj/debug.h>
#include <string.h>

#include <algorithm>

#include "protocol/crc32c.h"
#include "protocol/wire-int.h"

namespace postern::test {

namespace {

// Body of a scripted frame: guest's epoch, host's epoch, number, body length, bytes that depend on all of these, CRC.
constexpr size_t NUMBER = 16;
constexpr size_t LENGTH = 20;
constexpr size_t FILLING = 24;

void writeBody(const HelloPair& hellos, size_t number, kj::ArrayPtr<kj::byte> body) {
  auto guest = hellos.guest().epoch();
  auto host = hellos.host().epoch();
  memcpy(body.begin(), guest.data(), guest.size());
  memcpy(body.begin() + 8, host.data(), host.size());
  putLittleEndian(static_cast<uint32_t>(number), body.begin() + NUMBER);
  putLittleEndian(static_cast<uint32_t>(body.size()), body.begin() + LENGTH);
  TestRandom filling(getLittleEndian<uint64_t>(body.begin()) ^ number);
  filling.fill(body.slice(FILLING, body.size() - 4));
  putLittleEndian(crc32c(body.slice(0, body.size() - 4)), body.end() - 4);
}

bool isSound(kj::ArrayPtr<const kj::byte> body) {
  return body.size() >= MIN_SCRIPTED_BODY &&
         getLittleEndian<uint32_t>(body.end() - 4) == crc32c(body.slice(0, body.size() - 4));
}

bool isOf(const HelloPair& hellos, kj::ArrayPtr<const kj::byte> body) {
  auto guest = hellos.guest().epoch();
  auto host = hellos.host().epoch();
  return memcmp(body.begin(), guest.data(), 8) == 0 && memcmp(body.begin() + 8, host.data(), 8) == 0;
}

constexpr ScriptedFrame SMALL[] = {
    {Role::GUEST, FrameKind::HANDSHAKE, 48}, {Role::HOST, FrameKind::HANDSHAKE, 48},
    {Role::GUEST, FrameKind::RECORD, 60},    {Role::HOST, FrameKind::RECORD, 40},
    {Role::HOST, FrameKind::RECORD, 28},     {Role::GUEST, FrameKind::RECORD, 90},
    {Role::GUEST, FrameKind::RECORD, 31},    {Role::HOST, FrameKind::RECORD, 50},
};

constexpr ScriptedFrame LARGE[] = {
    {Role::GUEST, FrameKind::HANDSHAKE, 48}, {Role::HOST, FrameKind::HANDSHAKE, 48},
    {Role::GUEST, FrameKind::RECORD, 60},    {Role::HOST, FrameKind::RECORD, 65535},
    {Role::HOST, FrameKind::RECORD, 30000},  {Role::GUEST, FrameKind::RECORD, 65535},
    {Role::GUEST, FrameKind::RECORD, 4096},  {Role::HOST, FrameKind::RECORD, 65000},
};

}  // namespace

PipeResult MortalPipe::read(kj::ArrayPtr<kj::byte> buffer) {
  if (isDead()) return {PipeState::OPEN, 0};
  auto result = in.read(buffer.slice(0, std::min<uint64_t>(buffer.size(), readsLeft)));
  readsLeft -= result.bytes;
  bytesRead += result.bytes;
  return result;
}

PipeResult MortalPipe::write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) {
  size_t written = 0;
  for (auto piece : pieces) {
    if (isDead()) break;
    auto part = piece.slice(0, std::min<uint64_t>(piece.size(), writesLeft));
    auto result = out.write(kj::arrayPtr(&part, 1));
    if (result.state != PipeState::OPEN) return written > 0 ? PipeResult{PipeState::OPEN, written} : result;
    KJ_IF_MAYBE (r, recording) r->addAll(part.slice(0, result.bytes));
    writesLeft -= result.bytes;
    bytesWritten += result.bytes;
    written += result.bytes;
    if (result.bytes < piece.size()) break;
  }
  return {PipeState::OPEN, written};
}

kj::Promise<void> MortalPipe::whenReadable() {
  if (isDead()) return kj::NEVER_DONE;
  return in.whenReadable();
}

kj::Promise<void> MortalPipe::whenWritable() {
  if (isDead()) return kj::NEVER_DONE;
  return out.whenWritable();
}

Script smallScript() {
  return kj::arrayPtr(SMALL, sizeof(SMALL) / sizeof(SMALL[0]));
}

Script largeScript() {
  return kj::arrayPtr(LARGE, sizeof(LARGE) / sizeof(LARGE[0]));
}

Hello helloOf(Role role) {
  Hello hello;
  hello.role = role;
  hello.patterns = PATTERN_KKPSK0;
  return hello;
}

// SerialEnd -----------------------------------------------------------------------------------------------------------

SerialEnd::SerialEnd(Role role, FakeDirection& in, FakeDirection& out, Script script, Random& random, kj::Timer& timer,
                     ReadScratch& scratch)
    : pipe(in, out),
      link(pipe, helloOf(role), random, timer, scratch),
      role(role),
      script(script),
      task(kj::evalLater([this]() { return run(); }).eagerlyEvaluate([this](kj::Exception&& e) {
        failure = kj::mv(e);
      })) {}

SerialEnd::~SerialEnd() noexcept(false) {
  pipe.kill();
}

const HelloPair& SerialEnd::hellos() const {
  return KJ_ASSERT_NONNULL(connection)->hellos();
}

void SerialEnd::closeSession() {
  KJ_ASSERT_NONNULL(connection)->close();
  KJ_IF_MAYBE (c, closer) (*c)->fulfill();
}

kj::Promise<void> SerialEnd::run() {
  return link.accept().then([this](kj::OneOf<kj::Own<FrameLink>, LinkEnd> accepted) -> kj::Promise<void> {
    if (accepted.is<LinkEnd>()) {
      ends.add(accepted.get<LinkEnd>());
      return kj::NEVER_DONE;
    }
    ++sessions;
    connection = kj::mv(accepted.get<kj::Own<FrameLink>>());
    step = 0;
    outgoing = nullptr;
    outgoingSent = 0;
    return pump();
  });
}

kj::Promise<void> SerialEnd::pump() {
  auto& c = *KJ_ASSERT_NONNULL(connection);
  for (;;) {
    bool blocked = !writeWhatIsDue(c);
    auto item = c.readFrame();
    if (item.is<LinkEnd>()) return ended(item.get<LinkEnd>());
    KJ_IF_MAYBE (frame, item.tryGet<Frame>()) {
      if (!takeFrame(c, *frame)) {
        c.close();
        return ended(LinkEnd::CLOSED);
      }
      continue;
    }
    if (!blocked && outgoingSent < outgoing.size()) continue;
    auto paf = kj::newPromiseAndFulfiller<void>();
    closer = kj::mv(paf.fulfiller);
    auto wait = c.whenReadable().exclusiveJoin(kj::mv(paf.promise));
    if (blocked) wait = wait.exclusiveJoin(c.whenWritable());
    return wait.then([this]() { return pump(); });
  }
}

kj::Promise<void> SerialEnd::ended(LinkEnd why) {
  ends.add(why);
  connection = nullptr;
  return run();
}

// False: the pipe is full.
bool SerialEnd::writeWhatIsDue(FrameLink& c) {
  for (;;) {
    if (outgoingSent == outgoing.size()) {
      if (step == script.size() || script[step].sender != role) return true;
      makeFrame(c);
    }
    kj::ArrayPtr<const kj::byte> rest = outgoing.slice(outgoingSent, outgoing.size());
    // In two pieces, as a session writes header and body.
    size_t cut = std::min<size_t>(rest.size(), 11);
    kj::ArrayPtr<const kj::byte> pieces[] = {rest.slice(0, cut), rest.slice(cut, rest.size())};
    auto result = c.write(kj::arrayPtr(pieces, cut < rest.size() ? 2 : 1));
    if (result.state != PipeState::OPEN) return true;  // the next read says why
    outgoingSent += result.bytes;
    if (result.bytes == 0) return false;
    if (outgoingSent == outgoing.size() && ++step == HANDSHAKE_FRAMES_OF_SCRIPT) c.authenticated();
  }
}

void SerialEnd::makeFrame(FrameLink& c) {
  auto& frame = script[step];
  outgoing = kj::heapArray<kj::byte>(FRAME_HEADER_BYTES + frame.bodyBytes);
  outgoingSent = 0;
  writeFrameHeader({static_cast<uint16_t>(frame.bodyBytes), frame.kind, linkTag(c.hellos())}, outgoing);
  writeBody(c.hellos(), step, outgoing.slice(FRAME_HEADER_BYTES, outgoing.size()));
}

bool SerialEnd::takeFrame(FrameLink& c, const Frame& frame) {
  bool sound = isSound(frame.body);
  if (sound && !isOf(c.hellos(), frame.body)) {
    ++staleFrames;
    return false;
  }
  bool expected = sound && step < script.size() && script[step].sender != role && script[step].kind == frame.kind &&
                  script[step].bodyBytes == frame.body.size() &&
                  getLittleEndian<uint32_t>(frame.body.begin() + NUMBER) == step;
  if (!expected) {
    ++corruptFrames;
    return false;
  }
  if (++step == HANDSHAKE_FRAMES_OF_SCRIPT) c.authenticated();
  return true;
}

// SerialStage ---------------------------------------------------------------------------------------------------------

namespace {

ReadScratch& sharedScratch() {
  static ReadScratch scratch;
  return scratch;
}

}  // namespace

SerialStage::SerialStage(Script script, uint64_t seed)
    : waitScope(loop), timer(kj::origin<kj::TimePoint>()), random(seed), script(script) {}

void SerialStage::start(Role role) {
  auto& slot = role == Role::GUEST ? guestEnd : hostEnd;
  slot = nullptr;
  slot = kj::heap<SerialEnd>(role, into(role), outOf(role), script, random, timer, sharedScratch());
}

void SerialStage::kill(Role role) {
  (role == Role::GUEST ? guestEnd : hostEnd) = nullptr;
}

SerialEnd& SerialStage::end(Role role) {
  return *KJ_ASSERT_NONNULL(role == Role::GUEST ? guestEnd : hostEnd);
}

void SerialStage::run() {
  loop.run(5'000'000);
  KJ_ASSERT(!loop.isRunnable(), "a loop that never rests");
  KJ_IF_MAYBE (e, guestEnd) {
    KJ_IF_MAYBE (f, (*e)->failure) kj::throwFatalException(kj::cp(*f));
  }
  KJ_IF_MAYBE (e, hostEnd) {
    KJ_IF_MAYBE (f, (*e)->failure) kj::throwFatalException(kj::cp(*f));
  }
}

void SerialStage::advance(kj::Duration time) {
  timer.advanceTo(timer.now() + time);
  run();
}

void SerialStage::roundTrip() {
  for (auto* direction : {&wire.toHost, &wire.toGuest}) {
    direction->setStalled(false);
    run();
    direction->setStalled(true);
  }
}

bool SerialStage::bothUp() {
  if (!guest().isUp() || !host().isUp()) return false;
  auto& g = guest().hellos();
  auto& h = host().hellos();
  return g.own.nonce == h.peer.nonce && g.peer.nonce == h.own.nonce && g.ownBytes == h.peerBytes &&
         g.peerBytes == h.ownBytes;
}

bool SerialStage::bothDone() {
  return guest().isDone() && host().isDone() && bothUp() && staleFrames() == 0;
}

unsigned SerialStage::staleFrames() {
  unsigned sum = 0;
  KJ_IF_MAYBE (e, guestEnd) sum += (*e)->staleFrames;
  KJ_IF_MAYBE (e, hostEnd) sum += (*e)->staleFrames;
  return sum;
}

}  // namespace postern::test
