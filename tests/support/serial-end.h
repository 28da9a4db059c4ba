#pragma once
// SerialEnd: a process at one end of a serial pipe: a SerialLink, and over it a small session that can tell when a byte
// of another session got into it. SerialStage: two of them, a wire and a hand-turned clock.
//
// The session stands in for Noise and records: a script of frames in both directions, strictly in order. Each frame
// carries both epochs, its number and a checksum. A frame that fails the checksum or is out of order ends the session,
// as one AEAD failure would. A frame that is sound but of another pair of epochs must never be delivered.

#include <kj/async.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include "protocol/read-scratch.h"
#include "tests/support/fake-pipe.h"
#include "tests/support/test-random.h"
#include "transport/serial-link.h"

namespace postern::test {

// A pipe that stops in the middle of a byte count, as the process that uses it would. What it wrote stays in the wire.
class MortalPipe final : public BytePipe {
 public:
  MortalPipe(FakeDirection& in, FakeDirection& out) : in(in), out(out) {}

  uint64_t readsLeft = kj::maxValue;   // bytes; at 0 it is dead
  uint64_t writesLeft = kj::maxValue;  // bytes; at 0 it is dead
  bool isDead() const { return dead || readsLeft == 0 || writesLeft == 0; }
  void kill() { dead = true; }

  kj::Maybe<kj::Vector<kj::byte>> recording;  // what is written, once set
  uint64_t bytesRead = 0;
  uint64_t bytesWritten = 0;

  PipeResult read(kj::ArrayPtr<kj::byte> buffer) override;
  PipeResult write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override;
  kj::Promise<void> whenReadable() override;
  kj::Promise<void> whenWritable() override;
  void close() override { dead = true; }

 private:
  FakeDirection& in;
  FakeDirection& out;
  bool dead = false;
};

struct ScriptedFrame {
  Role sender;
  FrameKind kind;
  size_t bodyBytes;  // at least MIN_SCRIPTED_BODY
};
constexpr size_t MIN_SCRIPTED_BODY = 28;
using Script = kj::ArrayPtr<const ScriptedFrame>;

// Three handshake-like frames and a few small records each way.
Script smallScript();
// The same with records of up to 65,535 bytes.
Script largeScript();
// How many frames of a script stand before authentication.
constexpr size_t HANDSHAKE_FRAMES_OF_SCRIPT = 3;

Hello helloOf(Role role);

class SerialEnd {
 public:
  SerialEnd(Role role, FakeDirection& in, FakeDirection& out, Script script, Random& random, kj::Timer& timer,
            ReadScratch& scratch);
  // As kill -9: nothing more is written.
  ~SerialEnd() noexcept(false);

  MortalPipe pipe;
  SerialLink link;

  bool isUp() const { return connection != nullptr; }
  bool isDone() const { return isUp() && step == script.size(); }
  const HelloPair& hellos() const;
  // Ends the session at this end, as a failed handshake does; accept() is called again.
  void closeSession();

  unsigned sessions = 0;       // times UP
  unsigned staleFrames = 0;    // sound frames of another session that were delivered: must stay 0
  unsigned corruptFrames = 0;  // what would be AEAD failures
  kj::Vector<LinkEnd> ends;    // why sessions and accept() ended
  kj::Maybe<kj::Exception> failure;

 private:
  const Role role;
  const Script script;
  kj::Maybe<kj::Own<FrameLink>> connection;
  size_t step = 0;
  kj::Array<kj::byte> outgoing;
  size_t outgoingSent = 0;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> closer;
  kj::Promise<void> task = nullptr;

  kj::Promise<void> run();
  kj::Promise<void> pump();
  bool writeWhatIsDue(FrameLink& c);
  void makeFrame(FrameLink& c);
  bool takeFrame(FrameLink& c, const Frame& frame);
  kj::Promise<void> ended(LinkEnd why);
};

// The pieces that every test of the link needs. Runs the loop until nothing is left to do; fails if that does not come.
class SerialStage {
 public:
  explicit SerialStage(Script script = smallScript(), uint64_t seed = 1);

  kj::EventLoop loop;
  kj::WaitScope waitScope;
  kj::TimerImpl timer;
  FakeWire wire;
  TestRandom random;
  Script script;
  kj::Maybe<kj::Own<SerialEnd>> guestEnd;
  kj::Maybe<kj::Own<SerialEnd>> hostEnd;

  void start(Role role);
  void kill(Role role);
  SerialEnd& end(Role role);
  SerialEnd& guest() { return end(Role::GUEST); }
  SerialEnd& host() { return end(Role::HOST); }
  FakeDirection& into(Role role) { return role == Role::GUEST ? wire.toGuest : wire.toHost; }
  FakeDirection& outOf(Role role) { return role == Role::GUEST ? wire.toHost : wire.toGuest; }

  void run();
  void advance(kj::Duration time);
  // Lets each direction deliver once what lay in it at the start.
  void roundTrip();

  bool bothUp();    // with each other
  bool bothDone();  // and the script is over, with nothing stale delivered
  unsigned staleFrames();
};

inline Role other(Role role) {
  return role == Role::GUEST ? Role::HOST : Role::GUEST;
}

}  // namespace postern::test
