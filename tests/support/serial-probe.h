#pragma once
// SerialProbe: one SerialLink (the host's) whose peer is the test itself, byte by byte.

#include <kj/async.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include "tests/support/serial-end.h"

namespace postern::test {

// What a guest with this nonce says.
Hello guestHello(kj::byte nonceByte, Epoch echo = {}, bool replyWanted = false);
kj::Array<kj::byte> syncOf(const Hello& hello);
kj::Array<kj::byte> frameOf(FrameKind kind, LinkTag tag, kj::ArrayPtr<const kj::byte> body);
kj::Array<kj::byte> filled(size_t bytes, kj::byte value);
kj::Array<kj::byte> randomBytes(size_t bytes, uint64_t seed);
kj::Array<kj::byte> joined(std::initializer_list<kj::ArrayPtr<const kj::byte>> parts);

class SerialProbe {
 public:
  SerialProbe();

  kj::EventLoop loop;
  kj::WaitScope waitScope;
  kj::TimerImpl timer;
  FakeWire wire;
  TestRandom random;
  ReadScratch scratch;
  MortalPipe pipe;
  SerialLink link;

  // accept() in progress, or what it gave.
  void accept();
  bool isUp() const { return connection != nullptr; }
  kj::Maybe<kj::Own<FrameLink>> connection;
  kj::Maybe<LinkEnd> acceptEnd;
  FrameLink& session();

  void run();
  void advance(kj::Duration time);
  void send(kj::ArrayPtr<const kj::byte> bytes);
  // All that the link has written since the last call, which must be nothing but whole SYNCs.
  kj::Array<Hello> heard();
  kj::Array<kj::byte> written() { return wire.toGuest.take(); }

  // Brings the link UP with a guest of this nonce, and forgets what was written for it. accept() has been called.
  void bringUp(kj::byte nonceByte);
  LinkTag tag();
  // readFrame() that must give a frame, nothing, or an end.
  Frame frame();
  bool nothingToRead();
  kj::Maybe<LinkEnd> end();
  // As other links of the process do between two turns of the loop.
  void spoilScratch();

 private:
  kj::Promise<void> accepting = nullptr;
};

// The HELLOs of `bytes`, which must be nothing but whole SYNCs.
kj::Array<Hello> parseSyncs(kj::ArrayPtr<const kj::byte> bytes, Role reader);

}  // namespace postern::test
