#pragma once
// MoverLab: two movers on one loop, joined by a channel of two real sessions over a socket pair, and an opener's end of
// a socket at each, by which a test says and hears what an opener would. Either mover can be left out: then the test
// has the channel's end itself.

#include <deque>

#include "protocol/transfer/opener-message.h"
#include "tests/support/temporary-folder.h"
#include "tests/unit/transport/joined-sessions.h"
#include "tests/unit/transport/temp-dir.h"
#include "transport/packet-socket.h"
#include "transport/transfer/mover.h"

namespace postern::transfer::lab {

// A message as an opener hears it.
struct Heard {
  ToOpener message;
  kj::Array<kj::byte> content;

  template <typename T>
  T& backward() {
    return message.get<Backward>().get<T>();
  }
  template <typename T>
  T& forward() {
    return message.get<Forward>().get<T>();
  }
};

class TestOpener {
 public:
  TestOpener(kj::UnixEventPort& port, kj::AutoCloseFd fd)
      : socket(kj::heap<PacketSocket>(kj::mv(fd), port, MAX_PACKET_BYTES, size_t(0))) {}

  void send(const Forward& message, kj::ArrayPtr<const kj::byte> content = nullptr, int fd = -1);
  void send(const Backward& message);
  void send(const Opened& message, kj::ArrayPtr<const int> fds);
  void send(kj::Array<kj::byte> frames, kj::ArrayPtr<const int> fds = nullptr);
  // `sent` is left out, and `progress`.
  kj::Promise<Heard> next();
  void close() { socket = nullptr; }

 private:
  kj::Own<PacketSocket> socket;
  FrameBuilder builder;
  std::deque<Heard> heard;

  void take(kj::ArrayPtr<const kj::byte> packet);
};

struct Settled {
  kj::String path;
  kj::Maybe<ProblemKind> problem;
  bool hasHash;
};

class TestGuard final : public MoverGuard {
 public:
  kj::Maybe<Problem> admit(kj::StringPtr path, const Entry& entry) override;
  void ready(bool into) override { saidInto = into; }
  kj::Promise<void> pace(size_t bytes) override;
  void settled(kj::StringPtr path, kj::Maybe<const Problem&> problem,
               kj::Maybe<kj::ArrayPtr<const kj::byte>> hash) override;

  kj::Vector<kj::String> admitted;
  kj::String denies;
  kj::Maybe<bool> saidInto;
  uint64_t paced = 0;
  kj::Maybe<kj::Function<void(uint64_t)>> onPace;  // with the bytes so far
  kj::Vector<Settled> outcomes;
};

class MoverLab : public postern::test::JoinedSessions {
 public:
  MoverLab();
  ~MoverLab() noexcept(false);

  postern::test::TemporaryFolder folder;
  kj::Own<BulkChannel> hostChannel, guestChannel;
  TestGuard sourceGuard, destinationGuard;
  kj::Own<Mover> source, destination;
  kj::Maybe<kj::Own<TestOpener>> sourceOpener, destinationOpener;

  TestOpener& from() { return *KJ_ASSERT_NONNULL(sourceOpener); }
  TestOpener& to() { return *KJ_ASSERT_NONNULL(destinationOpener); }

  kj::Promise<MoverEnd> startSource(const MoverOptions& options = {});
  kj::Promise<MoverEnd> startDestination(const MoverOptions& options = {});
  // With an opener that the test has elsewhere.
  kj::Promise<MoverEnd> startSource(kj::AutoCloseFd opener, const MoverOptions& options);
  kj::Promise<MoverEnd> startDestination(kj::AutoCloseFd opener, const MoverOptions& options);
  // Totals there, ready back.
  void announce(Totals totals = {1000, 1000, uint64_t(1) << 40, 10, 1000});
  // Done there, finished back; both movers end well.
  void finish(kj::Promise<MoverEnd>& sourceEnd, kj::Promise<MoverEnd>& destinationEnd);

  // Files. -----------------------------------------------------------------------------------------------------
  kj::Array<kj::byte> bytes(size_t size);
  kj::AutoCloseFd fileOf(kj::StringPtr name, kj::ArrayPtr<const kj::byte> content);
  kj::AutoCloseFd emptyFile(kj::StringPtr name) { return fileOf(name, nullptr); }
  kj::Array<kj::byte> contentOf(int fd);

  // A file's entry, sent with its descriptor. The number that it has.
  void sendFile(kj::StringPtr name, int fd, uint64_t size, bool wantsBase = false);
  // The destination hears of it and opens it.
  void openFile(int fd, kj::Maybe<int> base = nullptr, bool resumed = false);
  Commit awaitCommit();
};

Entry fileEntry(kj::StringPtr name, uint64_t size);
Entry directoryEntry(kj::StringPtr name);
kj::Array<kj::byte> frameOf(const Forward& message, kj::ArrayPtr<const kj::byte> content = nullptr);
kj::Array<kj::byte> frameOf(const Backward& message);

using postern::openDescriptors;
size_t threads();  // of movers

}  // namespace postern::transfer::lab
