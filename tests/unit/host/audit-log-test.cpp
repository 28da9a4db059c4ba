#include "host/audit/audit-log.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include <thread>

#include "tests/unit/host/audit-fixture.h"

namespace postern::host::test {
namespace {

// While it lives, files of this process cannot grow above so many bytes: a disk that is full.
class FullDisk {
 public:
  explicit FullDisk(rlim_t bytes) {
    signal(SIGXFSZ, SIG_IGN);
    KJ_SYSCALL(getrlimit(RLIMIT_FSIZE, &before));
    rlimit small = {bytes, before.rlim_max};
    KJ_SYSCALL(setrlimit(RLIMIT_FSIZE, &small));
  }
  ~FullDisk() noexcept(false) { KJ_SYSCALL(setrlimit(RLIMIT_FSIZE, &before)); }
  KJ_DISALLOW_COPY(FullDisk);

 private:
  rlimit before;
};

TEST_CASE("events are appended, read back by tail, verified, and the log goes on over restarts") {
  AuditFixture f;
  f.fill(3);
  {
    auto log = f.open();
    CHECK(!log->found().torn);
    CHECK(log->found().damaged == nullptr);
    CHECK(log->lastSequence() == 3);
    REQUIRE(log->append(f.event("after.restart")) == nullptr);
    CHECK(log->lastSequence() == 4);
    CHECK((f.sound().head == log->head()));
  }
  auto summary = f.sound();
  CHECK(summary.lines == 4);
  CHECK(summary.firstSequence == 1);
  CHECK(summary.lastSequence == 4);
  auto tail = auditTail(auditFiles(f.path), 2);
  REQUIRE(tail.size() == 2);
  CHECK(contains(tail[0], "\"call.2\""));
  CHECK(contains(tail[1], "\"after.restart\""));
  CHECK(auditTail(auditFiles(f.path), 100).size() == 4);
  CHECK(auditTail(auditFiles(f.path), 0).size() == 0);
  struct stat info;
  KJ_SYSCALL(stat(f.path.cStr(), &info));
  CHECK((info.st_mode & 07777) == 0640);
}

TEST_CASE("a log of thousands of lines, short and long, is read back line by line") {
  AuditFixture f;
  auto log = f.open();
  auto path = kj::str(kj::repeat('p', 4000));
  for (size_t i = 0; i < 3000; ++i) {
    auto event = f.event();
    const AuditField more[] = {{"path", kj::StringPtr(path.slice(path.size() - i % 4001))}};
    event.more = more;
    REQUIRE(log->append(event) == nullptr);
  }
  CHECK(f.sound().lines == 3000);
  CHECK((f.sound().head == log->head()));
  CHECK(auditTail(auditFiles(f.path), 2999).size() == 2999);
}

TEST_CASE("an empty log is sound and has no lines") {
  AuditFixture f;
  CHECK(f.sound().lines == 0);
  { auto log = f.open(); }
  CHECK(f.sound().firstSequence == 0);
}

TEST_CASE("a line is on the disk 100 ms after it was appended, or at once when 64 wait") {
  AuditFixture f;
  auto log = f.open();
  log->flush().wait(f.io.waitScope);
  REQUIRE(log->append(f.event()) == nullptr);
  f.timer.advanceTo(f.timer.now() + 99 * kj::MILLISECONDS);
  usleep(20000);
  f.io.waitScope.poll();
  CHECK(log->confirmedSequence() == 0);
  f.timer.advanceTo(f.timer.now() + 1 * kj::MILLISECONDS);
  CHECK(f.soon([&] { return log->confirmedSequence() == 1; }));
  for (int i = 0; i < 63; ++i) REQUIRE(log->append(f.event()) == nullptr);
  usleep(20000);
  f.io.waitScope.poll();
  CHECK(log->confirmedSequence() == 1);
  REQUIRE(log->append(f.event()) == nullptr);
  CHECK(f.soon([&] { return log->confirmedSequence() == 65; }));
}

TEST_CASE("lines that come while the disk is busy are synced afterwards, and each flush waits for its own") {
  AuditFixture f;
  auto log = f.open();
  kj::Vector<kj::Promise<void>> flushes;
  for (int i = 0; i < 50; ++i) {
    REQUIRE(log->append(f.event()) == nullptr);
    flushes.add(log->flush());
  }
  for (size_t i = 0; i < flushes.size(); ++i) {
    flushes[i].wait(f.io.waitScope);
    CHECK(log->confirmedSequence() >= i + 1);
  }
  { auto cancelled = log->flush(); }
  log->flush().wait(f.io.waitScope);
  REQUIRE(log->append(f.event()) == nullptr);
  auto running = log->flush();
  log = nullptr;  // with an fdatasync in progress
  CHECK_THROWS_AS(running.wait(f.io.waitScope), kj::Exception);
  CHECK(f.sound().lines == 51);
}

TEST_CASE("the log is rotated by size, keeps so many files, and the chain goes through all of them") {
  AuditFixture f;
  f.options.fileBytes = 2000;
  f.options.files = 4;
  auto log = f.open();
  auto append = [&](unsigned count) {
    for (unsigned i = 0; i < count; ++i) REQUIRE(log->append(f.event()) == nullptr);
  };
  append(10);
  auto files = auditFiles(f.path);
  REQUIRE(files.size() > 1);
  CHECK((files.back() == f.path));
  for (auto& file : files) {
    struct stat info;
    KJ_SYSCALL(stat(file.cStr(), &info));
    CHECK(info.st_size <= 2000);
    CHECK((info.st_mode & 07777) == 0640);
  }
  CHECK(f.sound().firstSequence == 1);
  CHECK(f.sound().lines == 10);
  CHECK(auditTail(files, 10).size() == 10);
  append(90);
  CHECK(auditFiles(f.path).size() == 4);
  auto summary = f.sound();
  CHECK(summary.firstSequence > 50);
  CHECK(summary.lastSequence == 100);
  CHECK((summary.head == log->head()));
  auto tail = auditTail(auditFiles(f.path), 8);
  REQUIRE(tail.size() == 8);
  for (size_t i = 0; i < 8; ++i) CHECK(contains(tail[i], kj::str("{\"seq\":", 93 + i, ",")));
  log->flush().wait(f.io.waitScope);
  CHECK(log->confirmedSequence() == 100);
  log = nullptr;
  log = f.open();
  append(100);
  CHECK(f.sound().lastSequence == 200);
}

TEST_CASE("a crash between the two renames of a rotation, or before the new file's first line, loses nothing") {
  AuditFixture f;
  f.fill(5);
  auto older = kj::str(f.path, ".1");
  KJ_SYSCALL(rename(f.path.cStr(), older.cStr()));
  writeFile(kj::str(f.path, ".new"), nullptr);
  f.fill(1);  // the new file was not there
  CHECK(f.sound().lines == 6);
  KJ_SYSCALL(unlink(f.path.cStr()));
  writeFile(f.path, nullptr);
  f.fill(1);  // it was, and empty
  CHECK(f.sound().lines == 6);
  auto first = readFile(f.path);
  writeFile(f.path, first.slice(0, 20));
  {
    auto log = f.open();  // its first line was cut
    CHECK(log->found().torn);
    CHECK(log->lastSequence() == 5);
    REQUIRE(log->append(f.event()) == nullptr);
  }
  CHECK(f.sound().lines == 6);
}

TEST_CASE("a crash in the middle of a line, at each of its bytes: noticed, recorded in the next line, and verifiable") {
  AuditFixture f;
  f.fill(3);
  auto whole = readFile(f.path);
  size_t lastLine = whole.size() - 1;
  while (whole[lastLine - 1] != '\n') --lastLine;
  for (size_t end = lastLine; end < whole.size(); ++end) {
    writeFile(f.path, whole.slice(0, end));
    if (end > lastLine) {
      auto found = f.problem();
      CHECK(found.kind == AuditProblem::Kind::UNFINISHED);
      CHECK(found.line == 3);
    }
    auto log = f.open();
    CHECK(log->found().torn == (end > lastLine));
    CHECK(log->found().damaged == nullptr);
    CHECK(log->lastSequence() == 2);
    if (end > lastLine) CHECK(f.problem().kind == AuditProblem::Kind::UNFINISHED);  // opening has changed nothing
    REQUIRE(log->append(f.event("next")) == nullptr);
    CHECK(f.sound().lines == 3);
    auto tail = auditTail(auditFiles(f.path), 1);
    CHECK(contains(tail[0], "\"next\""));
    CHECK(contains(tail[0], kj::str("\"torn-bytes\":", end - lastLine, ",")) == (end > lastLine));
    if (end > lastLine + 8) CHECK(contains(tail[0], "\"torn\":\"{\\\"seq\\\":3"));
    REQUIRE(log->append(f.event("one more")) == nullptr);
    CHECK(!contains(auditTail(auditFiles(f.path), 1)[0], "torn"));
  }
}

TEST_CASE("a tail of garbage without an end, as a power cut may leave, is torn like any other") {
  AuditFixture f;
  f.fill(3);
  auto zeros = kj::heapArray<char>(200000);
  memset(zeros.begin(), 0, zeros.size());
  auto whole = readFile(f.path);
  writeFile(f.path, kj::str(whole, kj::arrayPtr(zeros.begin(), zeros.size())));
  auto log = f.open();
  CHECK(log->found().torn);
  REQUIRE(log->append(f.event()) == nullptr);
  CHECK(f.sound().lines == 4);
}

TEST_CASE("a damaged newest file is kept as it is, a new one is begun, and verification names the damage") {
  AuditFixture f;
  f.fill(5);
  auto damaged = readFile(f.path);
  auto at = size_t(strstr(damaged.cStr(), "call.2") - damaged.cStr());
  damaged[at] = 'C';
  writeFile(f.path, damaged);
  {
    auto log = f.open();
    CHECK(!log->found().torn);
    auto& found = KJ_ASSERT_NONNULL(log->found().damaged);
    CHECK(found.kind == AuditProblem::Kind::ALTERED);
    CHECK(found.line == 3);
    REQUIRE(log->append(f.event()) == nullptr);
    CHECK(log->lastSequence() == 6);
  }
  CHECK((readFile(kj::str(f.path, ".1")) == damaged));
  auto found = f.problem();
  CHECK((found.file == kj::str(f.path, ".1")));
  CHECK(found.line == 3);
  const kj::String newest[] = {kj::str(f.path)};
  CHECK(verifyAudit(newest).is<AuditSummary>());
  auto log = f.open();
  CHECK(log->found().damaged == nullptr);
}

TEST_CASE(
    "a full disk: the event is refused and nothing of it stays; the next line that fits says how many are missing") {
  AuditFixture f;
  f.fill(3);
  auto whole = readFile(f.path);
  auto log = f.open();
  for (size_t room : {size_t(0), size_t(1), size_t(100)}) {
    FullDisk full(whole.size() + room);
    CHECK(KJ_ASSERT_NONNULL(log->append(f.event("lost"))) == AuditError::DISK_FULL);
    CHECK((readFile(f.path) == whole));
  }
  CHECK(log->droppedEvents() == 3);
  CHECK(log->lastSequence() == 3);
  REQUIRE(log->append(f.event("fits")) == nullptr);
  REQUIRE(log->append(f.event("fits too")) == nullptr);
  auto tail = auditTail(auditFiles(f.path), 2);
  CHECK(contains(tail[0], "\"dropped\":3,"));
  CHECK(!contains(tail[1], "dropped"));
  CHECK(f.sound().lines == 5);
  CHECK((describe(AuditError::DISK_FULL) != describe(AuditError::IO)));
}

TEST_CASE("a log that cannot be rotated goes on in the file it has") {
  AuditFixture f;
  f.options.fileBytes = 1000;
  auto log = f.open();
  KJ_SYSCALL(mkdir(kj::str(f.path, ".new").cStr(), 0700));  // in the way
  for (int i = 0; i < 10; ++i) REQUIRE(log->append(f.event()) == nullptr);
  CHECK(auditFiles(f.path).size() == 1);
  KJ_SYSCALL(rmdir(kj::str(f.path, ".new").cStr()));
  REQUIRE(log->append(f.event()) == nullptr);
  CHECK(auditFiles(f.path).size() == 2);
  CHECK(f.sound().lines == 11);
}

TEST_CASE("one writer: a second is refused in words that say so, also after a rotation") {
  AuditFixture f;
  f.options.fileBytes = 1000;
  auto log = f.open();
  CHECK(contains(f.tryOpen().get<kj::String>(), "in use by another process"));
  for (int i = 0; i < 10; ++i) REQUIRE(log->append(f.event()) == nullptr);
  CHECK(contains(f.tryOpen().get<kj::String>(), "in use by another process"));
  log = nullptr;
  CHECK(f.tryOpen().is<kj::Own<AuditLog>>());
}

TEST_CASE("what is no log is refused in a line that says what to do") {
  AuditFixture f;
  auto refused = [&] {
    auto opened = f.tryOpen();
    REQUIRE(opened.is<kj::String>());
    return kj::mv(opened.get<kj::String>());
  };
  KJ_SYSCALL(symlink("/etc/hostname", f.path.cStr()));
  CHECK(contains(refused(), "symbolic link"));
  KJ_SYSCALL(unlink(f.path.cStr()));
  KJ_SYSCALL(mkfifo(f.path.cStr(), 0600));
  CHECK(contains(refused(), "is not a file"));
  KJ_SYSCALL(unlink(f.path.cStr()));
  f.path = f.folder.file("missing/audit.log");
  CHECK(contains(refused(), "its folder is missing"));
}

TEST_CASE("kill -9 of a writing process loses nothing that flush() had confirmed, and the log goes on") {
  AuditFixture f;
  f.options.fileBytes = 20000;
  f.options.files = 500;
  uint64_t confirmedBefore = 0;
  for (int round = 0; round < 10; ++round) {
    int fds[2];
    KJ_SYSCALL(pipe2(fds, O_CLOEXEC));
    kj::AutoCloseFd readEnd(fds[0]);
    kj::AutoCloseFd writeEnd(fds[1]);
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      // A loop of its own: the parent's epoll descriptor is shared with this process.
      auto run = [&] {
        kj::UnixEventPort port;
        kj::EventLoop loop(port);
        kj::WaitScope scope(loop);
        auto opened = AuditLog::open(f.path, port.getTimer(), port, f.options);
        auto& log = opened.get<kj::Own<AuditLog>>();
        for (;;) {
          for (int i = 0; i < 5; ++i) (void)log->append(f.event());
          log->flush().wait(scope);
          auto confirmed = log->lastSequence();
          if (write(writeEnd, &confirmed, sizeof(confirmed)) != sizeof(confirmed)) _exit(1);
        }
      };
      std::thread(run).join();  // a KJ loop a thread, and this thread has the parent's
      _exit(0);
    }
    writeEnd = nullptr;
    uint64_t confirmed = 0;
    uint64_t said;
    ssize_t n = read(readEnd, &said, sizeof(said));  // it is at work
    usleep(useconds_t(3000 * round + 500));
    kill(pid, SIGKILL);
    int status;
    KJ_SYSCALL(waitpid(pid, &status, 0));
    REQUIRE(WIFSIGNALED(status));
    for (; n == ssize_t(sizeof(said)); n = read(readEnd, &said, sizeof(said))) confirmed = said;
    CHECK(confirmed > confirmedBefore);
    auto log = f.open();
    CHECK(log->found().damaged == nullptr);
    CHECK(log->lastSequence() >= confirmed);
    confirmedBefore = log->lastSequence();
    REQUIRE(log->append(f.event("after.kill")) == nullptr);
    auto summary = f.sound();
    CHECK(summary.firstSequence == 1);
    CHECK(summary.lines == log->lastSequence());
  }
}

}  // namespace
}  // namespace postern::host::test
