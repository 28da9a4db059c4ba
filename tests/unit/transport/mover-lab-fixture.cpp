#include <doctest/doctest.h>
#include <fcntl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <thread>

#include "tests/unit/transport/mover-lab.h"

namespace postern::transfer::lab {

namespace {

using postern::test::socketPair;

size_t countIn(const char* folder) {
  size_t count = 0;
  for ([[maybe_unused]] auto& entry : std::filesystem::directory_iterator(folder)) ++count;
  return count;
}

// Those that a sanitizer has for itself, once there was any other.
const size_t THREADS_AT_START = [] {
  std::thread([] {}).join();
  usleep(20000);
  return countIn("/proc/self/task");
}();

}  // namespace

// TestOpener ---------------------------------------------------------------------------------------------------------

void TestOpener::send(const Forward& message, kj::ArrayPtr<const kj::byte> content, int fd) {
  write(message, builder.init<schema::ToMover>().initForward());
  send(builder.toArray(content), fd < 0 ? kj::ArrayPtr<const int>() : kj::arrayPtr(&fd, 1));
}

void TestOpener::send(const Backward& message) {
  write(message, builder.init<schema::ToMover>().initBackward());
  send(builder.toArray());
}

void TestOpener::send(const Opened& message, kj::ArrayPtr<const int> fds) {
  write(message, builder.init<schema::ToMover>().initOpened());
  send(builder.toArray(), fds);
}

void TestOpener::send(kj::Array<kj::byte> frames, kj::ArrayPtr<const int> fds) {
  Packet packet{kj::mv(frames)};
  for (int fd : fds) {
    int copy;
    KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 0));
    packet.fds.add(kj::AutoCloseFd(copy));
  }
  socket->send(kj::mv(packet));
}

kj::Promise<Heard> TestOpener::next() {
  if (!heard.empty()) {
    auto first = kj::mv(heard.front());
    heard.pop_front();
    return kj::mv(first);
  }
  return socket->receive().then([this](kj::OneOf<postern::Packet, PacketsEnded, PacketTooMuch> received) {
    KJ_REQUIRE(received.is<Packet>(), "the mover has gone");
    take(received.get<Packet>().bytes);
    return next();
  });
}

void TestOpener::take(kj::ArrayPtr<const kj::byte> packet) {
  FrameReader reader;
  while (packet.size() > 0) {
    auto next = reader.next(packet);
    auto& frame = *KJ_ASSERT_NONNULL(next).get<FrameView*>();
    auto parsed = parseToOpener(frame);
    if (parsed.is<FrameError>()) KJ_FAIL_ASSERT("the mover broke a rule", parsed.get<FrameError>().rule);
    auto& message = parsed.get<ToOpener>();
    if (message.is<Sent>()) continue;
    if (message.is<Backward>() && message.get<Backward>().is<Progress>()) continue;
    heard.push_back({kj::mv(message), kj::heapArray(frame.content())});
  }
}

// TestGuard ----------------------------------------------------------------------------------------------------------

kj::Maybe<Problem> TestGuard::admit(kj::StringPtr path, const Entry&) {
  if (path == denies) return problem(ProblemKind::DENIED, kj::str("not this one"));
  admitted.add(kj::str(path));
  return nullptr;
}

kj::Promise<void> TestGuard::pace(size_t bytes) {
  paced += bytes;
  KJ_IF_MAYBE (hook, onPace) (*hook)(paced);
  return kj::READY_NOW;
}

void TestGuard::settled(kj::StringPtr path, kj::Maybe<const Problem&> problem,
                        kj::Maybe<kj::ArrayPtr<const kj::byte>> hash) {
  kj::Maybe<ProblemKind> kind;
  KJ_IF_MAYBE (p, problem) kind = p->kind;
  outcomes.add(Settled{kj::str(path), kind, hash != nullptr});
}

// MoverLab -----------------------------------------------------------------------------------------------------------

MoverLab::MoverLab() {
  auto channels = openChannel();
  hostChannel = kj::mv(channels.host);
  guestChannel = kj::mv(channels.guest);
}

MoverLab::~MoverLab() noexcept(false) {
  source = nullptr;
  destination = nullptr;
  // Threads of movers that are gone end by themselves.
  for (int i = 0; i < 1000 && threads() > 0; ++i) pass(5 * kj::MILLISECONDS);
}

kj::Promise<MoverEnd> MoverLab::startSource(const MoverOptions& options) {
  auto sockets = socketPair(SOCK_SEQPACKET);
  sourceOpener = kj::heap<TestOpener>(io.unixEventPort, kj::mv(sockets.one));
  return startSource(kj::mv(sockets.other), options);
}

kj::Promise<MoverEnd> MoverLab::startDestination(const MoverOptions& options) {
  auto sockets = socketPair(SOCK_SEQPACKET);
  destinationOpener = kj::heap<TestOpener>(io.unixEventPort, kj::mv(sockets.one));
  return startDestination(kj::mv(sockets.other), options);
}

kj::Promise<MoverEnd> MoverLab::startSource(kj::AutoCloseFd opener, const MoverOptions& options) {
  source = newSourceMover(io.unixEventPort, kj::mv(opener), kj::mv(hostChannel), options, sourceGuard);
  return source->run().eagerlyEvaluate(nullptr);
}

kj::Promise<MoverEnd> MoverLab::startDestination(kj::AutoCloseFd opener, const MoverOptions& options) {
  destination = newDestinationMover(io.unixEventPort, kj::mv(opener), kj::mv(guestChannel), options, destinationGuard);
  return destination->run().eagerlyEvaluate(nullptr);
}

void MoverLab::announce(Totals totals) {
  from().send(Forward(totals));
  CHECK(await(to().next()).message.get<Forward>().is<Totals>());
  to().send(Backward(Ready{true}));
  CHECK(await(from().next()).message.get<Backward>().is<Ready>());
}

void MoverLab::finish(kj::Promise<MoverEnd>& sourceEnd, kj::Promise<MoverEnd>& destinationEnd) {
  from().send(Forward(Done()));
  CHECK(await(to().next()).message.get<Forward>().is<Done>());
  to().send(Backward(Summary()));
  CHECK(await(from().next()).message.get<Backward>().is<Summary>());
  CHECK(await(kj::mv(sourceEnd)).is<Summary>());
  CHECK(await(kj::mv(destinationEnd)).is<Summary>());
}

// Files --------------------------------------------------------------------------------------------------------------

kj::Array<kj::byte> MoverLab::bytes(size_t size) {
  auto result = kj::heapArray<kj::byte>(size);
  random.fill(result);
  return result;
}

kj::AutoCloseFd MoverLab::fileOf(kj::StringPtr name, kj::ArrayPtr<const kj::byte> content) {
  int fd;
  KJ_SYSCALL(fd = open(folder.path(name).cStr(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  kj::AutoCloseFd result(fd);
  for (size_t done = 0; done < content.size();) {
    ssize_t n;
    KJ_SYSCALL(n = ::write(fd, content.begin() + done, content.size() - done));
    done += size_t(n);
  }
  return result;
}

kj::Array<kj::byte> MoverLab::contentOf(int fd) {
  struct stat stats;
  KJ_SYSCALL(fstat(fd, &stats));
  auto result = kj::heapArray<kj::byte>(size_t(stats.st_size));
  for (size_t done = 0; done < result.size();) {
    ssize_t n;
    KJ_SYSCALL(n = pread(fd, result.begin() + done, result.size() - done, off_t(done)));
    KJ_REQUIRE(n > 0);
    done += size_t(n);
  }
  return result;
}

void MoverLab::sendFile(kj::StringPtr name, int fd, uint64_t size, bool wantsBase) {
  auto entry = fileEntry(name, size);
  entry.wantsBase = wantsBase;
  from().send(Forward(kj::mv(entry)), nullptr, fd);
}

void MoverLab::openFile(int fd, kj::Maybe<int> base, bool resumed) {
  auto heard = await(to().next());
  REQUIRE(heard.message.is<Forward>());
  REQUIRE(heard.message.get<Forward>().is<Entry>());
  int fds[2] = {fd, base.orDefault(-1)};
  to().send(Opened{0, resumed, base != nullptr}, kj::arrayPtr(fds, base == nullptr ? 1 : 2));
}

Commit MoverLab::awaitCommit() {
  auto heard = await(to().next());
  REQUIRE(heard.message.is<Commit>());
  return kj::mv(heard.message.get<Commit>());
}

Entry fileEntry(kj::StringPtr name, uint64_t size) {
  Entry entry;
  entry.kind = EntryKind::FILE;
  entry.name = kj::str(name);
  entry.mode = 0644;
  entry.size = size;
  return entry;
}

Entry directoryEntry(kj::StringPtr name) {
  Entry entry;
  entry.kind = EntryKind::DIRECTORY;
  entry.name = kj::str(name);
  entry.mode = 0755;
  return entry;
}

kj::Array<kj::byte> frameOf(const Forward& message, kj::ArrayPtr<const kj::byte> content) {
  FrameBuilder builder;
  write(message, builder.init<schema::Forward>());
  return builder.toArray(content);
}

kj::Array<kj::byte> frameOf(const Backward& message) {
  FrameBuilder builder;
  write(message, builder.init<schema::Backward>());
  return builder.toArray();
}

size_t threads() {
  return countIn("/proc/self/task") - THREADS_AT_START;
}

}  // namespace postern::transfer::lab
