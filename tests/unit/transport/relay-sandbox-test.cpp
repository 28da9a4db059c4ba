// What relays need of a sandbox, in a process that has no more. Not under a sanitizer, whose runtime makes calls of its
// own.
#include <doctest/doctest.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/support/sanitized.h"
#include "tests/unit/transport/relay-lab.h"
#include "transport/sandbox.h"

namespace postern::test {
namespace {

constexpr int CAME_BACK = 42;

int endOf(kj::Function<void(kj::AsyncIoContext&)> attempt) {
  pid_t pid = fork();
  if (pid == 0) {
    auto io = kj::setupAsyncIo();
    alarm(60);
    forbidNewPrivileges();
    SystemCallFilter filter;
    allowBasics(filter);
    allowRelays(filter);
    allowThreads(filter);
    // Of the loop's clock.
    filter.allow(SCMP_SYS(timerfd_create));
    filter.allow(SCMP_SYS(timerfd_settime));
    filter.load();
    try {
      attempt(io);
    } catch (...) {
      _exit(1);
    }
    _exit(CAME_BACK);
  }
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  return status;
}

// T94
TEST_CASE("relays do all they do with the calls that a sandbox allows them") {
  if (SANITIZED) return;
  auto tcp = connectedSockets(SocketKind::TCP), hop = socketPair(SOCK_SEQPACKET);
  const kj::byte packet[] = {0, 'h', 'e', 'l', 'l', 'o', ' ', 't', 'h', 'e', 'r', 'e'};
  CHECK(send(hop.other, packet, sizeof(packet), 0) == sizeof(packet));
  CHECK(send(tcp.other, packet, sizeof(packet), 0) == sizeof(packet));
  int status = endOf([&](kj::AsyncIoContext& io) {
    auto& port = io.unixEventPort;
    auto end = newSocketEnd(port, kj::mv(tcp.one)), far = newHopEnd(port, kj::mv(hop.one));
    auto space = kj::heapArray<kj::byte>(MAX_BULK_DATA_BYTES);
    while (end->read(space).bytes == 0) end->whenReadable().wait(io.waitScope);
    auto readable = end->whenReadable();
    while (end->write(space).bytes > 0) continue;
    auto writable = end->whenWritable();
    while (far->read(space.slice(0, 5)).bytes == 0) far->whenReadable().wait(io.waitScope);
    while (far->read(space).bytes > 0) continue;
    while (far->write(space).bytes > 0) continue;
    auto reset = end->whenReset();
    far->finish();
    end->finish();
    far->reset();
    end->reset();
    reset.wait(io.waitScope);
    readable.wait(io.waitScope);
    writable.wait(io.waitScope);
  });
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == CAME_BACK);
}

TEST_CASE("no other option of a socket can be set by what relays may") {
  if (SANITIZED) return;
  auto pair = socketPair(SOCK_STREAM);
  int on = 1;
  for (auto option : {SO_REUSEADDR, SO_RCVBUF, SO_PASSCRED, SO_ATTACH_FILTER}) {
    int status = endOf([&](kj::AsyncIoContext&) { setsockopt(pair.one, SOL_SOCKET, option, &on, sizeof(on)); });
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == SIGSYS);
  }
  int status = endOf([&](kj::AsyncIoContext&) { setsockopt(pair.one, IPPROTO_TCP, TCP_LINGER2, &on, sizeof(on)); });
  CHECK(WIFSIGNALED(status));
}

}  // namespace
}  // namespace postern::test
