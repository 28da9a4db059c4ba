#pragma once
// FakePipe: two BytePipes joined in memory, with the failures that real ones have. Each direction is a FakeDirection
// that a test can fill, empty, stall, cut, trickle and corrupt at byte N while both ends are running.

#include <kj/async.h>
#include <kj/vector.h>
#include <stdint.h>

#include <deque>

#include "protocol/byte-pipe.h"

namespace postern::test {

class FakeDirection {
 public:
  // Faults, changed at any time.
  size_t capacity = size_t(256) << 10;  // bytes that lie between the ends; writes beyond it take a part or nothing
  size_t readAtMost = kj::maxValue;     // 1: a trickle
  size_t writeAtMost = kj::maxValue;
  kj::Maybe<uint64_t> flipAt;  // the byte with this index, counted from the pipe's start, arrives changed
  kj::byte flipMask = 1;
  kj::Vector<kj::byte>* tap = nullptr;  // gets a copy of all that is written
  kj::Maybe<uint64_t> cutAfter;         // after this many bytes the direction ends: later writes are refused with ENDED

  void setStalled(bool stalled);                    // a reader that gets nothing although bytes lie there
  void end();                                       // end of stream after what lies there
  void setConnected(bool connected);                // serial: the reader sees NOT_CONNECTED, the writer {OPEN, 0}
  void inject(kj::ArrayPtr<const kj::byte> bytes);  // behind what lies there, uncounted: stale bytes
  void drop();                                      // what lies there is lost
  kj::Array<kj::byte> take();                       // what lies there, and it is gone from the pipe

  uint64_t written() const { return totalWritten; }
  size_t lying() const { return bytes.size(); }

  PipeResult read(kj::ArrayPtr<kj::byte> buffer);
  PipeResult write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces);
  kj::Promise<void> whenReadable();
  kj::Promise<void> whenWritable();

 private:
  std::deque<kj::byte> bytes;
  uint64_t totalWritten = 0;
  bool ended = false;
  bool connected = true;
  bool stalled = false;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> reader;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> writer;

  void wakeReader();
  void wakeWriter();
};

// One end of a pair. The directions outlive it, so that a test can destroy an end (a killed process) and look at what
// is left.
class FakePipe final : public BytePipe {
 public:
  FakePipe(FakeDirection& in, FakeDirection& out) : in(in), out(out) {}
  // As the kernel does it for a process that is gone.
  ~FakePipe() noexcept(false) { close(); }

  PipeResult read(kj::ArrayPtr<kj::byte> buffer) override;
  PipeResult write(kj::ArrayPtr<const kj::ArrayPtr<const kj::byte>> pieces) override;
  kj::Promise<void> whenReadable() override { return in.whenReadable(); }
  kj::Promise<void> whenWritable() override { return out.whenWritable(); }
  // A stream: both directions end. With `serial` set, only this object stops.
  void close() override;

  bool serial = false;

 private:
  FakeDirection& in;
  FakeDirection& out;
  bool closed = false;
};

struct FakeWire {
  FakeDirection toHost;
  FakeDirection toGuest;
  kj::Own<FakePipe> guestEnd() { return kj::heap<FakePipe>(toGuest, toHost); }
  kj::Own<FakePipe> hostEnd() { return kj::heap<FakePipe>(toHost, toGuest); }
};

}  // namespace postern::test
