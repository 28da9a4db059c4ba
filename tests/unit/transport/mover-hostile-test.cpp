// Peers and openers that break the rules: each ends the transfer with PROTOCOL, and costs nothing else.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/unit/transport/mover-lab.h"

namespace postern::transfer {
namespace {

using namespace lab;

constexpr size_t MIB = size_t(1) << 20;
const Totals TOTALS{10, 10, uint64_t(1) << 30, 10, 10};

void expectProtocol(MoverLab& lab, kj::Promise<MoverEnd>& end, kj::StringPtr what = nullptr) {
  auto how = lab.await(kj::mv(end));
  REQUIRE(how.is<Problem>());
  CHECK(how.get<Problem>().kind == ProblemKind::PROTOCOL);
  if (what != nullptr) CHECK(strstr(how.get<Problem>().detail.cStr(), what.cStr()) != nullptr);
}

template <typename Message>
void say(MoverLab& lab, BulkChannel& channel, const Message& message, kj::ArrayPtr<const kj::byte> content = nullptr) {
  kj::Array<kj::byte> frame;
  if constexpr (std::is_same_v<Message, Forward>) {
    frame = frameOf(message, content);
  } else {
    frame = frameOf(message);
  }
  CHECK(lab.await(channel.write(frame)));
}

// A peer that sends
// -----------------------------------------------------------------------------------------------------

// Totals, and a large file that the opener has opened.
struct Receiving {
  MoverLab lab;
  kj::AutoCloseFd to = lab.emptyFile("to");
  kj::Promise<MoverEnd> end = lab.startDestination();

  explicit Receiving(uint64_t size = 10 * MIB, bool wantsBase = false) {
    say(lab, *lab.hostChannel, Forward(TOTALS));
    CHECK(lab.await(lab.to().next()).message.get<Forward>().is<Totals>());
    lab.to().send(Backward(Ready{true}));
    auto entry = fileEntry("file", size);
    entry.wantsBase = wantsBase;
    say(lab, *lab.hostChannel, Forward(kj::mv(entry)));
    lab.openFile(to);
  }
  void send(const Forward& message, kj::ArrayPtr<const kj::byte> content = nullptr) {
    say(lab, *lab.hostChannel, message, content);
  }
};

TEST_CASE("a peer that sends what does not fit a file ends the transfer") {
  auto block = kj::heapArray<kj::byte>(DATA_BYTES);
  memset(block.begin(), 7, block.size());
  kj::Function<void(Receiving&)> breaches[] = {
      [&](Receiving& peer) { peer.send(Forward(Data{4096}), block); },
      [&](Receiving& peer) {
        peer.send(Forward(Hole{0, 10 * MIB + 1}));
      },
      [&](Receiving& peer) {
        peer.send(Forward(Same{0, CHUNK_BYTES}));
      },
      [&](Receiving& peer) { peer.send(Forward(FileEnd())); },
      [&](Receiving& peer) { peer.send(Forward(Done())); },
      [&](Receiving& peer) { peer.send(Forward(directoryEntry("other"))); },
      [&](Receiving& peer) { peer.send(Forward(TOTALS)); },
      [&](Receiving& peer) {
        peer.send(Forward(Data{0}), block);
        peer.send(Forward(Data{0}), block);
      },
  };
  for (auto& breach : breaches) {
    Receiving peer;
    breach(peer);
    expectProtocol(peer.lab, peer.end);
    // What there is of it is not lost, if it is of use.
    CHECK(peer.lab.awaitCommit().outcome.is<Kept>());
    CHECK_THROWS(peer.lab.await(peer.lab.to().next()));
  }
}

// T93
TEST_CASE("holes of a byte each that wait for a disk stop the channel, not the process") {
  constexpr size_t LARGE = 256 * MIB;
  MoverLab lab;
  MoverOptions options;
  options.sparse = schema::FileOrder::Sparse::NEVER;
  auto to = lab.emptyFile("to");
  auto end = lab.startDestination(options);
  say(lab, *lab.hostChannel, Forward(TOTALS));
  CHECK(lab.await(lab.to().next()).message.get<Forward>().is<Totals>());
  say(lab, *lab.hostChannel, Forward(fileEntry("file", 1000 * MIB)));
  lab.openFile(to);
  say(lab, *lab.hostChannel, Forward(Hole{0, LARGE}));  // zeros to write, which takes a while
  uint64_t offset = LARGE, accepted = 0;
  auto isWriting = [&]() {
    struct stat status;
    KJ_SYSCALL(fstat(to, &status));
    return size_t(status.st_size) < LARGE;
  };
  while (isWriting()) {
    kj::Vector<kj::byte> frames;
    for (int i = 0; i < 500; ++i) frames.addAll(frameOf(Forward(Hole{offset++, 1})));
    accepted += frames.size();
    CHECK(lab.await(lab.hostChannel->write(frames)));
  }
  CHECK(accepted < 4 * MIB);
}

TEST_CASE("a file that wants a base is not sent before it was told") {
  MoverLab lab;
  auto to = lab.emptyFile("to");
  auto end = lab.startDestination();
  say(lab, *lab.hostChannel, Forward(TOTALS));
  CHECK(lab.await(lab.to().next()).message.get<Forward>().is<Totals>());
  auto entry = fileEntry("file", MIB);
  entry.wantsBase = true;
  say(lab, *lab.hostChannel, Forward(kj::mv(entry)));
  say(lab, *lab.hostChannel, Forward(Data{0}), lab.bytes(1000));
  lab.openFile(to);
  // The base was told meanwhile: what crosses it is in order as far as anybody can see.
  lab.pass();
  say(lab, *lab.hostChannel, Forward(Same{1000, CHUNK_BYTES}));
  expectProtocol(lab, end);
}

TEST_CASE("bytes that are no frames end the transfer, wherever they are cut") {
  for (size_t piece : {size_t(1), size_t(7), size_t(1000)}) {
    MoverLab lab;
    auto end = lab.startDestination();
    auto frame = frameOf(Forward(TOTALS));
    for (size_t at = 0; at < frame.size(); at += piece) {
      CHECK(lab.await(lab.hostChannel->write(frame.slice(at, kj::min(at + piece, frame.size())))));
    }
    CHECK(lab.await(lab.to().next()).message.get<Forward>().is<Totals>());
    auto noise = lab.bytes(64);
    memset(noise.begin(), 0xff, 8);
    CHECK(lab.await(lab.hostChannel->write(noise)));
    expectProtocol(lab, end);
  }
}

TEST_CASE("a peer that does not say done, but ends, has broken off the transfer") {
  MoverLab lab;
  auto end = lab.startDestination();
  say(lab, *lab.hostChannel, Forward(TOTALS));
  lab.hostChannel->finish();
  auto how = lab.await(kj::mv(end));
  REQUIRE(how.is<Problem>());
  CHECK(how.get<Problem>().detail == "the other end broke off the transfer");
}

// A peer that receives
// ----------------------------------------------------------------------------------------------------

TEST_CASE("a peer that answers out of order, or with what was not asked, ends the transfer") {
  kj::byte hash[2 * HASH_BYTES] = {};
  kj::Function<void(MoverLab&)> breaches[] = {
      [&](MoverLab& lab) { say(lab, *lab.guestChannel, Backward(Ready{true})); },
      [&](MoverLab& lab) { say(lab, *lab.guestChannel, Backward(Base{MIB})); },
      [&](MoverLab& lab) { say(lab, *lab.guestChannel, Backward(Hashes{kj::heapArray<kj::byte>(hash, HASH_BYTES)})); },
      [&](MoverLab& lab) { say(lab, *lab.guestChannel, Backward(Summary())); },
      [&](MoverLab& lab) {
        say(lab, *lab.guestChannel,
            Backward(DestinationFailed{0, kj::str("x"), problem(ProblemKind::FAILED, kj::str("x"))}));
      },
      [&](MoverLab& lab) {
        auto from = lab.fileOf("from", lab.bytes(MIB));
        lab.sendFile("file", from, MIB, true);
        lab.pass();
        say(lab, *lab.guestChannel, Backward(Base{CHUNK_BYTES}));
        say(lab, *lab.guestChannel, Backward(Hashes{kj::heapArray<kj::byte>(hash, 2 * HASH_BYTES)}));
      },
  };
  for (auto& breach : breaches) {
    MoverLab lab;
    auto end = lab.startSource();
    lab.from().send(Forward(TOTALS));
    say(lab, *lab.guestChannel, Backward(Ready{true}));
    CHECK(lab.await(lab.from().next()).message.get<Backward>().is<Ready>());
    breach(lab);
    expectProtocol(lab, end);
  }
}

// T93
TEST_CASE("hashes that nobody waits for stop the channel, not the process") {
  MoverLab lab;
  auto end = lab.startSource();
  Totals totals = TOTALS;
  totals.bytes = uint64_t(1) << 41;
  lab.from().send(Forward(totals));
  say(lab, *lab.guestChannel, Backward(Ready{true}));
  CHECK(lab.await(lab.from().next()).message.get<Backward>().is<Ready>());
  auto from = lab.emptyFile("from");
  uint64_t size = uint64_t(1) << 40;
  KJ_SYSCALL(ftruncate(from, off_t(size)));
  KJ_SYSCALL(pwrite(from, "x", 1, 0));
  lab.sendFile("file", from, size, true);
  lab.pass();
  say(lab, *lab.guestChannel, Backward(Base{size}));
  auto hashes = frameOf(Backward(Hashes{lab.bytes(MAX_HASHES * HASH_BYTES)}));
  // The peer gives no credit, since it reads nothing: so the file stands still.
  unsigned written = 0;
  bool blocked = false;
  while (!blocked && written < 2000) {
    auto one = lab.guestChannel->write(hashes).then([](bool) { return false; });
    auto late = lab.io.provider->getTimer().afterDelay(200 * kj::MILLISECONDS).then([]() { return true; });
    blocked = one.exclusiveJoin(kj::mv(late)).wait(lab.waitScope);
    ++written;
  }
  CHECK(blocked);
  CHECK(written < 200);
}

// Openers -------------------------------------------------------------------------------------------------------------

struct Wrong {
  kj::StringPtr what;
  kj::AutoCloseFd fd;
};

kj::Vector<Wrong> wrongFiles(MoverLab& lab) {
  kj::Vector<Wrong> result;
  int pipes[2], sockets[2], folder, device;
  KJ_SYSCALL(pipe2(pipes, O_CLOEXEC));
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sockets));
  KJ_SYSCALL(folder = open(lab.folder.path(".").cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  KJ_SYSCALL(device = open("/dev/zero", O_RDWR | O_CLOEXEC));
  result.add(Wrong{"FIFO", kj::AutoCloseFd(pipes[0])});
  result.add(Wrong{"FIFO's end", kj::AutoCloseFd(pipes[1])});
  result.add(Wrong{"socket", kj::AutoCloseFd(sockets[0])});
  result.add(Wrong{"socket's end", kj::AutoCloseFd(sockets[1])});
  result.add(Wrong{"directory", kj::AutoCloseFd(folder)});
  result.add(Wrong{"device", kj::AutoCloseFd(device)});
  return result;
}

// T91
TEST_CASE("an opener that passes no regular file has broken a rule") {
  for (size_t i = 0; i < 6; ++i) {
    MoverLab lab;
    auto wrong = wrongFiles(lab);
    CAPTURE(wrong[i].what.cStr());
    auto end = lab.startSource();
    lab.from().send(Forward(TOTALS));
    lab.sendFile("file", wrong[i].fd, 10 * MIB);
    expectProtocol(lab, end, "not a regular file");
  }
  for (size_t i = 0; i < 6; ++i) {
    MoverLab lab;
    auto wrong = wrongFiles(lab);
    CAPTURE(wrong[i].what.cStr());
    auto end = lab.startDestination();
    say(lab, *lab.hostChannel, Forward(TOTALS));
    CHECK(lab.await(lab.to().next()).message.get<Forward>().is<Totals>());
    say(lab, *lab.hostChannel, Forward(fileEntry("file", 10 * MIB)));
    lab.openFile(wrong[i].fd);
    say(lab, *lab.hostChannel, Forward(Data{0}), lab.bytes(1000));
    expectProtocol(lab, end, "not a regular file");
  }
}

TEST_CASE("an opener that passes a file that is not new, or no file for a version, has broken a rule") {
  for (bool notNew : {true, false}) {
    MoverLab lab;
    auto wrong = wrongFiles(lab);
    auto end = lab.startDestination();
    say(lab, *lab.hostChannel, Forward(TOTALS));
    CHECK(lab.await(lab.to().next()).message.get<Forward>().is<Totals>());
    say(lab, *lab.hostChannel, Forward(fileEntry("file", 10 * MIB)));
    if (notNew) {
      lab.openFile(lab.fileOf("full", lab.bytes(10)));
    } else {
      lab.openFile(lab.emptyFile("new"), int(wrong[0].fd));
    }
    say(lab, *lab.hostChannel, Forward(Data{0}), lab.bytes(1000));
    expectProtocol(lab, end, notNew ? "not empty" : "not a regular file");
  }
}

TEST_CASE("a source's opener that breaks a rule ends the transfer") {
  auto content = kj::heapArray<kj::byte>(1000);
  memset(content.begin(), 7, content.size());
  kj::Function<void(MoverLab&)> breaches[] = {
      [&](MoverLab& lab) { lab.from().send(Backward(Ready{true})); },
      [&](MoverLab& lab) {
        lab.from().send(Opened{0, false, false}, nullptr);
      },
      [&](MoverLab& lab) { lab.from().send(Forward(TOTALS)); },
      [&](MoverLab& lab) { lab.from().send(Forward(Leave())); },
      [&](MoverLab& lab) { lab.from().send(Forward(Data{0}), content); },
      // A descriptor that belongs to nothing.
      [&](MoverLab& lab) { lab.from().send(Forward(directoryEntry("d")), nullptr, lab.emptyFile("x")); },
      // Not as an opener makes messages: a frame of the channel's.
      [&](MoverLab& lab) { lab.from().send(frameOf(Forward(directoryEntry("d")))); },
      [&](MoverLab& lab) { lab.from().send(lab.bytes(100)); },
      // Half a frame.
      [&](MoverLab& lab) {
        FrameBuilder builder;
        write(Forward(directoryEntry("d")), builder.init<schema::ToMover>().initForward());
        auto frame = builder.toArray();
        lab.from().send(kj::heapArray(frame.slice(0, frame.size() - 8)));
      },
      [&](MoverLab& lab) { lab.from().send(lab.bytes(MAX_PACKET_BYTES + 8)); },
      // Two descriptors for one file.
      [&](MoverLab& lab) {
        FrameBuilder builder;
        write(Forward(fileEntry("f", 1000)), builder.init<schema::ToMover>().initForward());
        auto one = lab.emptyFile("one"), two = lab.emptyFile("two");
        int fds[] = {one, two};
        lab.from().send(builder.toArray(), fds);
      },
      // A base for bytes that the opener sends itself.
      [&](MoverLab& lab) {
        auto entry = fileEntry("f", 1000);
        entry.wantsBase = true;
        lab.from().send(Forward(kj::mv(entry)));
      },
  };
  for (auto& breach : breaches) {
    MoverLab lab;
    auto end = lab.startSource();
    lab.from().send(Forward(TOTALS));
    breach(lab);
    expectProtocol(lab, end);
    CHECK_THROWS(lab.await(lab.from().next()));
  }
}

TEST_CASE("a destination's opener that breaks a rule ends the transfer") {
  kj::Function<void(MoverLab&)> breaches[] = {
      [&](MoverLab& lab) { lab.to().send(Backward(Ready{true})); },
      [&](MoverLab& lab) { lab.to().send(Backward(Base{0})); },
      [&](MoverLab& lab) { lab.to().send(Backward(Summary())); },
      [&](MoverLab& lab) { lab.to().send(Forward(TOTALS)); },
      [&](MoverLab& lab) {
        lab.to().send(Opened{1, false, false}, nullptr);
      },
      [&](MoverLab& lab) {
        int one = 0;
        lab.to().send(Opened{0, false, true}, kj::arrayPtr(&one, 1));
      },
      [&](MoverLab& lab) {
        lab.to().send(Opened{0, true, false}, nullptr);
      },
      [&](MoverLab& lab) {
        lab.to().send(Opened{0, false, false}, nullptr);
        lab.to().send(Opened{0, false, false}, nullptr);
      },
      [&](MoverLab& lab) { lab.to().send(lab.bytes(100)); },
  };
  for (auto& breach : breaches) {
    MoverLab lab;
    auto end = lab.startDestination();
    say(lab, *lab.hostChannel, Forward(TOTALS));
    say(lab, *lab.hostChannel, Forward(fileEntry("file", MIB)));
    CHECK(lab.await(lab.to().next()).message.get<Forward>().is<Totals>());
    lab.to().send(Backward(Ready{true}));
    CHECK(lab.await(lab.to().next()).message.get<Forward>().is<Entry>());
    breach(lab);
    expectProtocol(lab, end);
  }
}

}  // namespace
}  // namespace postern::transfer
