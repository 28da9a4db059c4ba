// The board's readers beside a writer that writes all the time, is killed, or is none.

#include <doctest/doctest.h>
#include <grp.h>
#include <sys/mman.h>

#include <atomic>
#include <random>
#include <thread>

#include "tests/support/sanitized.h"
#include "tests/unit/host/board-fixture.h"

namespace postern::host::test {
namespace {

// A VM all of whose fields say the same number, so that a mixture of two shows.
BoardVm consistent(uint32_t k) {
  auto vm = BoardFixture::vm(kj::str("vm-", k));
  vm.sessionPid = k;
  vm.sessionCount = k;
  for (auto& byte : vm.vm.bytes) byte = kj::byte(k);
  GuestReport report;
  report.at = fromMonotonicNs(k + 1);
  report.sequence = k;
  report.agentVersion = kj::str(k);
  report.memoryTotal = k;
  report.memoryAvailable = k;
  report.policyHash.fill(kj::byte(k));
  vm.report = kj::mv(report);
  return vm;
}

bool isConsistent(const BoardVm& vm) {
  auto k = vm.sessionPid;
  KJ_IF_MAYBE (report, vm.report) {
    return vm.name == kj::str("vm-", k) && vm.sessionCount == k && vm.vm.bytes[0] == kj::byte(k) &&
           vm.vm.bytes[15] == kj::byte(k) && report->at == fromMonotonicNs(k + 1) && report->sequence == k &&
           report->agentVersion == kj::str(k) && report->memoryTotal == k && report->memoryAvailable == k &&
           report->policyHash[0] == kj::byte(k) && report->policyHash[31] == kj::byte(k);
  }
  return false;
}

constexpr unsigned SNAPSHOTS = postern::test::SANITIZED ? 2000 : 20000;

TEST_CASE("no read is torn: a thread writes all the time, and every VM that is read was written like that") {
  BoardFixture f;
  BoardWriter writer(f.path, monotonicNow(), 8);
  kj::Vector<uint32_t> slots;
  for (uint32_t i = 0; i < 8; ++i) slots.add(KJ_ASSERT_NONNULL(writer.add(consistent(i))));
  auto reader = f.reader();
  std::atomic<bool> stop{false};
  std::thread writing([&] {
    for (uint32_t k = 0; !stop; ++k) {
      writer.update(slots[k % 8], consistent(k));
      if (k % 100 == 0) writer.beat(monotonicNow());
    }
  });
  size_t read = 0;
  size_t torn = 0;
  size_t unreadable = 0;
  uint64_t last = 0;
  size_t moved = 0;
  unsigned snapshots = 0;
  // On a busy machine the writer may not run at once.
  auto deadline = monotonicNow() + 30 * kj::SECONDS;
  for (; (snapshots < SNAPSHOTS || moved <= 10) && monotonicNow() < deadline; ++snapshots) {
    auto snapshot = reader->snapshot(monotonicNow());
    unreadable += snapshot.unreadable;
    for (auto& vm : snapshot.vms) {
      ++read;
      if (!isConsistent(vm)) ++torn;
    }
    if (!snapshot.vms.empty() && snapshot.vms[0].sessionCount != last) {
      last = snapshot.vms[0].sessionCount;
      ++moved;
    }
  }
  stop = true;
  writing.join();
  CHECK(torn == 0);
  CHECK(read + unreadable == size_t(snapshots) * 8);
  CHECK(unreadable * 1000 <= read);  // waiting for a living writer works out
  CHECK(moved > 10);                 // there was a writer
}

TEST_CASE(
    "a writer that is killed in the middle of a write leaves one slot that is reported, and the next one takes over") {
  BoardFixture f;
  int status = inChild([&] {
    BoardWriter writer(f.path, monotonicNow(), 8);
    for (uint32_t i = 0; i < 3; ++i) KJ_ASSERT_NONNULL(writer.add(consistent(i)));
    ScribbledBoard raw(f.path);
    raw.slot(1).lock.fetch_add(1);  // it had just begun
    raw.slot(1).words[3].store(0xdeadbeef);
    raise(SIGKILL);
    return 0;
  });
  REQUIRE(WIFSIGNALED(status));
  auto reader = f.reader();
  auto start = monotonicNow();
  auto snapshot = reader->snapshot(start);
  CHECK(monotonicNow() - start < 1 * kj::SECONDS);  // it was not waited for
  CHECK(snapshot.unreadable == 1);
  REQUIRE(snapshot.vms.size() == 2);
  CHECK((isConsistent(snapshot.vms[0]) && isConsistent(snapshot.vms[1])));
  CHECK(reader->snapshot(start + 4 * kj::SECONDS).writer == BoardWriterState::SILENT);

  BoardWriter next(f.path, monotonicNow(), 8);
  REQUIRE(next.add(consistent(7)) != nullptr);
  CHECK(reader->snapshot(monotonicNow()).writer == BoardWriterState::REPLACED);
  auto fresh = f.reader()->snapshot(monotonicNow());
  CHECK(fresh.writer == BoardWriterState::ALIVE);
  CHECK(fresh.unreadable == 0);
  REQUIRE(fresh.vms.size() == 1);
  CHECK(isConsistent(fresh.vms[0]));
}

TEST_CASE("a writer that is killed at any moment leaves at most one slot unreadable and none torn") {
  for (int round = 0; round < 20; ++round) {
    BoardFixture f;
    pid_t pid = fork();
    REQUIRE(pid >= 0);
    if (pid == 0) {
      BoardWriter writer(f.path, monotonicNow(), 8);
      for (uint32_t i = 0; i < 4; ++i) KJ_ASSERT_NONNULL(writer.add(consistent(i)));
      for (uint32_t k = 0;; ++k) writer.update(k % 4, consistent(k));
    }
    while (BoardReader::open(f.path).is<kj::String>()) usleep(1000);
    usleep(useconds_t(2000 + 137 * round));
    kill(pid, SIGKILL);
    int status;
    KJ_SYSCALL(waitpid(pid, &status, 0));
    auto snapshot = f.reader()->snapshot(monotonicNow());
    CHECK(snapshot.unreadable <= 1);
    for (auto& vm : snapshot.vms) CHECK(isConsistent(vm));
  }
}

// T54
TEST_CASE("a reader cannot write: not through the file as another user, and not through its mapping") {
  BoardFixture f;
  BoardWriter writer(f.path, monotonicNow(), 4, gid_t(getgid()));
  REQUIRE(writer.add(f.vm("web1")) != nullptr);

  int status = inChild([&] {
    signal(SIGSEGV, SIG_DFL);  // a sanitizer's handler would exit instead
    auto reader = f.reader();
    *static_cast<volatile char*>(const_cast<void*>(reader->mapped())) = 'X';
    return 0;
  });
  CHECK((WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV));

  if (getuid() != 0) {
    MESSAGE("not root: opening the board as another user was not tried");
    return;
  }
  constexpr uid_t NOBODY = 65534;
  constexpr gid_t READERS = 65533;
  KJ_SYSCALL(chmod(f.folder.path().cStr(), 0755));
  KJ_SYSCALL(chown(f.path.cStr(), uid_t(-1), READERS));
  auto openedAs = [&](gid_t group, int flags) {
    return inChild([&] {
      KJ_SYSCALL(setgroups(0, nullptr));
      KJ_SYSCALL(setgid(group));
      KJ_SYSCALL(setuid(NOBODY));
      return open(f.path.cStr(), flags) >= 0 ? 0 : errno;
    });
  };
  CHECK(WEXITSTATUS(openedAs(READERS, O_RDONLY)) == 0);
  CHECK(WEXITSTATUS(openedAs(READERS, O_RDWR)) == EACCES);
  CHECK(WEXITSTATUS(openedAs(READERS, O_WRONLY)) == EACCES);
  CHECK(WEXITSTATUS(openedAs(NOBODY, O_RDONLY)) == EACCES);
  status = inChild([&] {
    KJ_SYSCALL(setgroups(0, nullptr));
    KJ_SYSCALL(setgid(READERS));
    KJ_SYSCALL(setuid(NOBODY));
    auto reader = f.reader();
    if (reader->snapshot(monotonicNow()).vms.size() != 1) return 1;
    // A mapping of a file that was opened for reading cannot be made writable.
    bool writable = mprotect(const_cast<void*>(reader->mapped()), 4096, PROT_READ | PROT_WRITE) == 0;
    return writable ? 2 : 0;
  });
  CHECK(status == 0);
}

}  // namespace
}  // namespace postern::host::test
