// file: a file of tmpfs to a new one, through openers, movers and a session, against a bare loop that reads, seals and
// writes to a socket, of which another process reads, opens and writes a new file. And many small ones.

#include <fcntl.h>
#include <kj/debug.h>
#include <kj/thread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "protocol/wire-int.h"
#include "tests/bench/bare-cipher.h"
#include "tests/bench/clock.h"
#include "tests/bench/measurement.h"
#include "tests/bench/peer-process.h"
#include "tests/bench/runtime.h"
#include "transport/transfer/destination-opener.h"
#include "transport/transfer/mover.h"
#include "transport/transfer/source-opener.h"

namespace postern::bench {

namespace {

constexpr double MIB = 1 << 20;
constexpr size_t SMALL_FILE_BYTES = 4096;

// "from", with "file" and "small/N" in it, and "to": in memory, as far as there is any.
class Folders {
 public:
  Folders(uint64_t bytes, unsigned smallFiles) : bytes(bytes) {
    path = kj::str(access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", "/postern-bench-XXXXXX");
    KJ_REQUIRE(mkdtemp(path.begin()) != nullptr);
    for (auto name : {"from", "from/small", "to"}) KJ_SYSCALL(mkdir(kj::str(path, "/", name).cStr(), 0700));
    fill("from/file", bytes);
    for (unsigned i = 0; i < smallFiles; ++i) fill(kj::str("from/small/", i), SMALL_FILE_BYTES);
    // So that the system has all the memory before the first run.
    fill("to/file", bytes);
  }
  ~Folders() noexcept(false) { std::filesystem::remove_all(path.cStr()); }
  KJ_DISALLOW_COPY(Folders);

  const uint64_t bytes;

  kj::String file(kj::StringPtr name) { return kj::str(path, "/", name); }
  kj::AutoCloseFd folder(kj::StringPtr name) { return openAs(name, O_RDONLY | O_DIRECTORY); }
  kj::AutoCloseFd openAs(kj::StringPtr name, int flags) {
    int fd;
    KJ_SYSCALL(fd = open(file(name).cStr(), flags | O_CLOEXEC, 0600), name);
    return kj::AutoCloseFd(fd);
  }
  void clear() {
    std::filesystem::remove_all(file("to").cStr());
    KJ_SYSCALL(mkdir(file("to").cStr(), 0700));
  }

 private:
  kj::String path;

  void fill(kj::StringPtr name, uint64_t size) {
    auto fd = openAs(name, O_WRONLY | O_CREAT);
    auto block = kj::heapArray<kj::byte>(BLOCK_BYTES);
    for (size_t i = 0; i < block.size(); ++i) block[i] = static_cast<kj::byte>(i * 7 + 1);
    for (uint64_t done = 0; done < size; done += block.size()) {
      writeAll(fd, block.slice(0, static_cast<size_t>(kj::min<uint64_t>(block.size(), size - done))));
    }
  }
};

struct Speed {
  double perSecond;   // MiB, or files
  double cpuSeconds;  // of both processes
};

// From the start until the other process has said that all is there.
template <typename Near>
Speed measured(double amount, PeerProcess& peer, double cpuBefore, Near&& near) {
  double began = wallSeconds();
  near();
  double took = wallSeconds() - began;
  peer.finish();
  return {amount / took, cpuSeconds() + cpuOfChildren() - cpuBefore};
}

// The bare loop ------------------------------------------------------------------------------------------------------

void receiveBare(int socket, Folders& folders) {
  BareCipher cipher;
  auto to = folders.openAs("to/file", O_WRONLY | O_CREAT | O_EXCL);
  for (uint64_t done = 0; done < folders.bytes; done += BLOCK_BYTES) {
    readAll(socket, cipher.sealed());
    cipher.open();
    writeAll(to, cipher.plain());
  }
  const kj::byte all = 1;
  writeAll(socket, kj::arrayPtr(&all, 1));
}

Speed bareLoop(Folders& folders) {
  folders.clear();
  double cpuBefore = cpuSeconds() + cpuOfChildren();
  PeerProcess peer(1, [&](kj::ArrayPtr<kj::AutoCloseFd> sockets) { receiveBare(sockets[0], folders); });
  auto socket = peer.takeSocket();
  return measured(static_cast<double>(folders.bytes) / MIB, peer, cpuBefore, [&]() {
    BareCipher cipher;
    auto from = folders.openAs("from/file", O_RDONLY);
    for (uint64_t done = 0; done < folders.bytes; done += BLOCK_BYTES) {
      readAll(from, cipher.plain());
      cipher.seal();
      writeAll(socket, cipher.sealed());
    }
    kj::byte all;
    readAll(socket, kj::arrayPtr(&all, 1));
  });
}

// A block is sent when it is full of small files.
constexpr unsigned SMALL_FILES_A_BLOCK = BLOCK_BYTES / SMALL_FILE_BYTES;

void receiveSmallBare(int socket, Folders& folders, unsigned files) {
  BareCipher cipher;
  KJ_SYSCALL(mkdir(folders.file("to/small").cStr(), 0700));
  for (unsigned i = 0; i < files; ++i) {
    unsigned at = i % SMALL_FILES_A_BLOCK;
    if (at == 0) {
      readAll(socket, cipher.sealed());
      cipher.open();
    }
    auto to = folders.openAs(kj::str("to/small/", i), O_WRONLY | O_CREAT | O_EXCL);
    writeAll(to, cipher.plain().slice(at * SMALL_FILE_BYTES, (at + 1) * SMALL_FILE_BYTES));
  }
  const kj::byte all = 1;
  writeAll(socket, kj::arrayPtr(&all, 1));
}

Speed smallBare(Folders& folders, unsigned files) {
  folders.clear();
  double cpuBefore = cpuSeconds() + cpuOfChildren();
  PeerProcess peer(1, [&](kj::ArrayPtr<kj::AutoCloseFd> sockets) { receiveSmallBare(sockets[0], folders, files); });
  auto socket = peer.takeSocket();
  return measured(files, peer, cpuBefore, [&]() {
    BareCipher cipher;
    for (unsigned i = 0; i < files; ++i) {
      unsigned at = i % SMALL_FILES_A_BLOCK;
      auto from = folders.openAs(kj::str("from/small/", i), O_RDONLY);
      readAll(from, cipher.plain().slice(at * SMALL_FILE_BYTES, (at + 1) * SMALL_FILE_BYTES));
      if (at + 1 < SMALL_FILES_A_BLOCK && i + 1 < files) continue;
      cipher.seal();
      writeAll(socket, cipher.sealed());
    }
    kj::byte all;
    readAll(socket, kj::arrayPtr(&all, 1));
  });
}

// Ours ---------------------------------------------------------------------------------------------------------------

struct OpenerSockets {
  kj::AutoCloseFd opener, mover;
  OpenerSockets() {
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
    opener = kj::AutoCloseFd(fds[0]);
    mover = kj::AutoCloseFd(fds[1]);
  }
};

void expectDone(const transfer::MoverEnd& end, uint64_t files) {
  if (end.is<transfer::Problem>()) KJ_FAIL_REQUIRE("the transfer failed", end.get<transfer::Problem>().detail);
  auto& summary = end.get<transfer::Summary>();
  KJ_REQUIRE(summary.files == files && summary.failures == 0, summary.files, summary.failures);
}

// The far process: the destination. The offer comes by a socket of its own.
void receiveFiles(kj::ArrayPtr<kj::AutoCloseFd> sockets, EnrolledPair& pair, Folders& folders, uint64_t files) {
  Runtime runtime;
  auto session = runtime.connectHost(kj::mv(sockets[0]), pair).wait(runtime.io.waitScope);
  runtime.io.waitScope.poll();  // ACCEPT goes out
  kj::byte offer[8];
  readAll(sockets[1], offer);
  auto accepted = session->bulk().accept({getLittleEndian<uint32_t>(offer), getLittleEndian<uint32_t>(offer + 4)});
  OpenerSockets ends;
  transfer::DestinationListener listener;
  kj::Thread opener([&]() {
    transfer::DestinationOptions options;
    options.into = true;
    transfer::runDestinationOpener(kj::mv(ends.opener), folders.folder("to"), options, listener);
  });
  transfer::MoverGuard guard;
  auto mover = transfer::newDestinationMover(runtime.io.unixEventPort, kj::mv(ends.mover),
                                             kj::mv(accepted.get<kj::Own<BulkChannel>>()), {}, guard);
  expectDone(mover->run().wait(runtime.io.waitScope), files);
  session->onEnd().wait(runtime.io.waitScope);
}

// What is called `name` in "from".
Speed copyFiles(Folders& folders, kj::StringPtr name, uint64_t files, double amount) {
  folders.clear();
  EnrolledPair pair;
  double cpuBefore = cpuSeconds() + cpuOfChildren();
  PeerProcess peer(2, [&](kj::ArrayPtr<kj::AutoCloseFd> sockets) { receiveFiles(sockets, pair, folders, files); });
  Runtime runtime;
  auto session = runtime.connectGuest(peer.takeSocket(0), pair).wait(runtime.io.waitScope);
  auto offering = peer.takeSocket(1);
  return measured(amount, peer, cpuBefore, [&]() {
    auto opened = session->bulk().open();
    auto& channel = KJ_ASSERT_NONNULL(opened);
    kj::byte offer[8];
    putLittleEndian(channel.offer.channel, offer);
    putLittleEndian(channel.offer.credit, offer + 4);
    writeAll(offering, offer);
    OpenerSockets ends;
    transfer::SourceListener listener;
    kj::Thread opener([&]() {
      kj::Vector<transfer::SourceTop> tops;
      tops.add(
          transfer::SourceTop{folders.folder("from"), kj::str(name), kj::str(name), kj::str(name), nullptr, false});
      transfer::SourceOptions options;
      options.recursive = true;
      transfer::runSourceOpener(kj::mv(ends.opener), kj::mv(tops), options, listener);
    });
    transfer::MoverGuard guard;
    auto mover =
        transfer::newSourceMover(runtime.io.unixEventPort, kj::mv(ends.mover), kj::mv(channel.channel), {}, guard);
    expectDone(mover->run().wait(runtime.io.waitScope), files);
    session->close(CloseCode::GOODBYE).wait(runtime.io.waitScope);
  });
}

}  // namespace

void measureFile(const Options& options, Report& report) {
  uint64_t bytes = uint64_t(options.quick ? 16 : 1024) << 20;
  unsigned smallFiles = options.quick ? 200 : 20000;
  Folders folders(bytes, smallFiles);
  auto reference = bareLoop(folders);
  auto ours = copyFiles(folders, "file", 1, static_cast<double>(bytes) / MIB);
  report.add("file", "MiB/s", Target::atLeast(0.80), {reference.perSecond, ours.perSecond});
  report.add("file, CPU of both ends", "ms", Target::none(), {reference.cpuSeconds * 1e3, ours.cpuSeconds * 1e3});
  auto smallReference = smallBare(folders, smallFiles);
  auto smallOurs = copyFiles(folders, "small", smallFiles, smallFiles);
  report.add("file, small ones", "files/s", Target::none(), {smallReference.perSecond, smallOurs.perSecond});
}

}  // namespace postern::bench
