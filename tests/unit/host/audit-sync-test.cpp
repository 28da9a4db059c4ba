#include "host/audit/audit-sync.h"

#include <doctest/doctest.h>
#include <errno.h>
#include <signal.h>

#include "tests/unit/host/audit-fixture.h"

namespace postern::host::test {
namespace {

TEST_CASE("jobs are done one after the other, what is to be closed is closed, and the first error is the answer") {
  AuditFixture f;
  int file;
  KJ_SYSCALL(file = open(f.path.cStr(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  kj::AutoCloseFd current(file);
  int fds[2];
  KJ_SYSCALL(pipe2(fds, O_CLOEXEC));
  kj::AutoCloseFd readEnd(fds[0]);
  kj::AutoCloseFd writeEnd(fds[1]);
  {
    AuditSync sync(f.io.unixEventPort);
    auto before = postern::openDescriptors();
    for (int i = 0; i < 10; ++i) CHECK(sync.run({}, current).wait(f.io.waitScope) == 0);
    kj::Vector<kj::AutoCloseFd> closing;
    closing.add(kj::AutoCloseFd(dup(current)));
    closing.add(kj::AutoCloseFd(dup(writeEnd)));  // a pipe cannot be synced
    closing.add(kj::AutoCloseFd(dup(current)));
    CHECK(sync.run(kj::mv(closing), current).wait(f.io.waitScope) == EINVAL);
    CHECK(postern::openDescriptors() == before);
    CHECK(sync.run({}, current).wait(f.io.waitScope) == 0);
    auto running = sync.run({}, current);
    CHECK_THROWS_AS(sync.run({}, current), kj::Exception);
    running.wait(f.io.waitScope);
  }
  { AuditSync unused(f.io.unixEventPort); }
  AuditSync ended(f.io.unixEventPort);
  { auto cancelled = ended.run({}, current); }
}

TEST_CASE("the thread takes no signal that the loop waits for") {
  AuditFixture f;
  AuditSync sync(f.io.unixEventPort);
  kj::UnixEventPort::captureSignal(SIGUSR2);  // blocked from here on in this thread alone
  for (int i = 0; i < 20; ++i) {
    auto signal = f.io.unixEventPort.onSignal(SIGUSR2);
    KJ_SYSCALL(kill(getpid(), SIGUSR2));
    CHECK(signal.wait(f.io.waitScope).si_signo == SIGUSR2);
  }
  sigset_t mask;
  pthread_sigmask(SIG_SETMASK, nullptr, &mask);
  CHECK(sigismember(&mask, SIGTERM) == 0);  // of this thread: as it was
}

}  // namespace
}  // namespace postern::host::test
