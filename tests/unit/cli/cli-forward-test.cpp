// postern forward: who connects gets a channel of his own, and what becomes of one is no other's business.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <sys/un.h>
#include <unistd.h>

#include <filesystem>
#include <string>
#include <thread>

#include "tests/unit/cli/cli-fixture.h"
#include "tests/unit/cli/cli-json-reader.h"
#include "transport/unix-socket.h"

using namespace postern;
using namespace postern::test;
using Kind = hs::Failure::Kind;
using Mode = Behaviour::Mode;

namespace {

void send(int fd, const std::string& text) {
  size_t done = 0;
  while (done < text.size()) {
    ssize_t n = ::send(fd, text.data() + done, text.size() - done, MSG_NOSIGNAL);
    if (n <= 0) return;
    done += size_t(n);
  }
}
std::string receive(int fd, size_t bytes = SIZE_MAX) {
  std::string all;
  char buffer[65536];
  while (all.size() < bytes) {
    ssize_t n = ::read(fd, buffer, kj::min(sizeof(buffer), bytes - all.size()));
    if (n <= 0) break;
    all.append(buffer, size_t(n));
  }
  return all;
}

kj::StringPtr echo(int fd) {
  char buffer[65536];
  for (ssize_t n; (n = ::read(fd, buffer, sizeof(buffer))) > 0;) send(fd, std::string(buffer, size_t(n)));
  shutdown(fd, SHUT_WR);
  return "finished";
}

// Connects as soon as somebody listens.
kj::AutoCloseFd connectTo(const sockaddr* address, socklen_t size) {
  for (int i = 0; i < 500; ++i) {
    kj::AutoCloseFd fd(socket(address->sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (connect(fd, address, size) == 0) return fd;
    usleep(20'000);
  }
  FAIL("nobody listens");
  return nullptr;
}
kj::AutoCloseFd connectTo(kj::StringPtr path) {
  auto address = unixAddress(path);
  return connectTo(reinterpret_cast<sockaddr*>(&address), sizeof(address));
}
sockaddr_in loopback(uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}
kj::AutoCloseFd connectTo(uint16_t port) {
  auto address = loopback(port);
  return connectTo(reinterpret_cast<sockaddr*>(&address), sizeof(address));
}

// A port that was free a moment ago, held by this socket.
struct TakenPort {
  kj::AutoCloseFd fd{socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)};
  uint16_t number;

  TakenPort() {
    auto address = loopback(0);
    KJ_SYSCALL(bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
    KJ_SYSCALL(listen(fd, 1));
    socklen_t size = sizeof(address);
    KJ_SYSCALL(getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size));
    number = ntohs(address.sin_port);
  }
};
uint16_t freePort() {
  return TakenPort().number;
}

// postern forward, and beside it, in a thread, somebody who uses it; Ctrl-C when he is done.
ExitStatus forward(CliWorld& world, std::initializer_list<kj::StringPtr> words, std::function<void()> use) {
  auto done = kj::newPromiseAndCrossThreadFulfiller<void>();
  world.interruptWhen(kj::mv(done.promise));
  std::thread user([&]() {
    use();
    done.fulfiller->fulfill();
  });
  auto status = world.run(words);
  user.join();
  return status;
}

std::string pattern(size_t bytes) {
  std::string text(bytes, '\0');
  uint32_t state = 1;
  for (auto& c : text) c = char((state = state * 1664525 + 1013904223) >> 24);
  return text;
}

}  // namespace

TEST_CASE("forward: whoever connects to the Unix socket talks with the service, several at a time") {
  CliWorld world;
  world.session.service = echo;
  auto path = world.here("sock");
  auto status = forward(world, {"forward", "web1", "unix:sock", "http"}, [&]() {
    auto first = connectTo(path), second = connectTo(path);
    send(first, "one");
    send(second, "two");
    CHECK((receive(second, 3) == "two"));
    CHECK((receive(first, 3) == "one"));
    shutdown(first, SHUT_WR);
    CHECK((receive(first) == ""));
    auto mode = std::filesystem::status(path.cStr()).permissions();
    CHECK(mode == (std::filesystem::perms::owner_read | std::filesystem::perms::owner_write));
  });
  CHECK(status == ExitStatus::INTERRUPTED);
  CHECK_TEXT(world.output(), kj::str("listening on unix:", path, "\n"));
  CHECK_TEXT(world.errors(), "");
  CHECK(world.session.connected.size() == 2);
  // One connection to the session for all of them, and no socket is left.
  CHECK(world.control.opened.size() == 1);
  CHECK(!std::filesystem::exists(path.cStr()));
}

TEST_CASE("forward: a TCP port, with 16 MiB exactly and each direction ending by itself") {
  CliWorld world;
  auto port = freePort();
  auto sent = pattern(16 << 20);
  std::string asked;
  world.session.service = [&](int fd) {
    asked = receive(fd);
    send(fd, asked);
    shutdown(fd, SHUT_WR);
    return "finished"_kj;
  };
  std::string got;
  auto status = forward(world, {"forward", "web1", kj::str(port), "http"}, [&]() {
    auto fd = connectTo(port);
    send(fd, sent);
    shutdown(fd, SHUT_WR);
    got = receive(fd);
  });
  CHECK(status == ExitStatus::INTERRUPTED);
  CHECK((asked == sent));
  CHECK((got == sent));
  CHECK_TEXT(world.output(), kj::str("listening on tcp:127.0.0.1:", port, "\n"));
}

TEST_CASE("forward: port 0 is one that is free, and is told") {
  CliWorld world;
  world.interruptAtOutput("listening on tcp:127.0.0.1:");
  CHECK(world.run({"forward", "web1", "tcp:127.0.0.1:0", "http"}) == ExitStatus::INTERRUPTED);
  CHECK(!contains(world.output(), "127.0.0.1:0\n"));
}

TEST_CASE("forward: with --json the address is in a document") {
  CliWorld json;
  json.interruptAtOutput("listening");
  CHECK(json.run({"forward", "web1", "tcp:127.0.0.1:0", "http", "--json"}) == ExitStatus::INTERRUPTED);
  CHECK(contains(json.output(), "{\"ok\":true,\"vm\":\"web1\",\"service\":\"http\",\"listening\":\"tcp:127.0.0.1:"));
}

TEST_CASE("forward: no copy of the socket stays here, so that the session's reset is one, and its end an end") {
  CliWorld world;
  auto port = freePort();
  world.session.service = [&](int fd) {
    bool resets = receive(fd, 1) == "r";
    linger atOnce{1, 0};
    if (resets) setsockopt(fd, SOL_SOCKET, SO_LINGER, &atOnce, sizeof(atOnce));
    usleep(100'000);  // the answer is out by then
    return resets ? "reset"_kj : "finished"_kj;
  };
  forward(world, {"forward", "web1", kj::str(port), "http"}, [&]() {
    for (auto text : {"r", "e"}) {
      auto fd = connectTo(port);
      send(fd, text);
      char byte;
      ssize_t n = ::read(fd, &byte, 1);
      CHECK(n == (*text == 'r' ? -1 : 0));
      if (n < 0) CHECK(errno == ECONNRESET);
    }
  });
}

TEST_CASE("forward: a channel that is refused is a line, its client sees a reset, and the next one is served") {
  CliWorld world;
  auto port = freePort();
  world.session.service = echo;
  world.session.behaviour.mode = Mode::FAIL;
  world.session.behaviour.kind = Kind::REFUSED;
  world.session.behaviour.text = "its target does not answer";
  forward(world, {"forward", "web1", kj::str(port), "http"}, [&]() {
    {
      auto fd = connectTo(port);
      char byte;
      CHECK(::read(fd, &byte, 1) < 0);
      CHECK(errno == ECONNRESET);
    }
    world.session.behaviour.mode = Mode::ANSWER;
    auto fd = connectTo(port);
    send(fd, "x");
    CHECK((receive(fd, 1) == "x"));
  });
  CHECK_TEXT(world.errors(), "postern: web1: service 'http': its target does not answer\n");
}

TEST_CASE("forward: when the session process has gone the next connection gets another one") {
  CliWorld world;
  world.session.service = [&](int fd) {
    if (receive(fd, 1) == "k") {
      usleep(200'000);  // it has answered by then
      world.session.behaviour.vanish();
    }
    send(fd, "y");
    shutdown(fd, SHUT_RDWR);
    return ""_kj;
  };
  auto path = world.here("sock");
  forward(world, {"forward", "web1", "unix:sock", "http"}, [&]() {
    for (auto text : {"k", "x", "k", "k", "x"}) {
      auto fd = connectTo(path);
      send(fd, text);
      CHECK((receive(fd) == "y"));
      usleep(200'000);
    }
  });
  CHECK(world.session.connected.size() == 5);
  CHECK(world.control.opened.size() == 4);
  CHECK_TEXT(world.errors(), "");
}

TEST_CASE("forward: a grant that has lapsed is followed by another one, once, and takes no channel along") {
  CliWorld world;
  world.session.service = echo;
  auto path = world.here("sock");
  forward(world, {"forward", "web1", "unix:sock", "http"}, [&]() {
    auto first = connectTo(path);
    send(first, "a");
    CHECK((receive(first, 1) == "a"));
    world.session.lapses = 1;
    auto second = connectTo(path);
    send(second, "b");
    CHECK((receive(second, 1) == "b"));
    send(first, "c");
    CHECK((receive(first, 1) == "c"));
    // What is granted now is good for the next one, too.
    auto third = connectTo(path);
    send(third, "d");
    CHECK((receive(third, 1) == "d"));
    world.session.lapses = 2;
    CHECK((receive(connectTo(path)) == ""));
  });
  CHECK(world.session.connected.size() == 3);
  CHECK(world.control.opened.size() == 3);
  CHECK_TEXT(world.errors(), "postern: web1: service 'http': posternd was started again\n");
}

TEST_CASE("forward: a session process that goes before it has answered is a line, and not asked again") {
  CliWorld world;
  world.session.behaviour.mode = Mode::VANISH;
  auto path = world.here("sock");
  forward(world, {"forward", "web1", "unix:sock", "http"}, [&]() {
    CHECK((receive(connectTo(path)) == ""));
    usleep(200'000);
    world.session.behaviour.mode = Mode::ANSWER;
    world.session.service = echo;
    auto fd = connectTo(path);
    send(fd, "z");
    CHECK((receive(fd, 1) == "z"));
  });
  CHECK_TEXT(world.errors(), "postern: web1: the session of web1 closed the connection before it had answered\n");
  CHECK(world.session.connected.size() == 1);
}

TEST_CASE("forward: while posternd is away, or grants it no more, there is a line for each that comes") {
  CliWorld world;
  world.session.service = [&](int fd) {
    receive(fd, 1);
    usleep(200'000);  // it has answered by then
    world.notRunning = true;
    world.session.behaviour.vanish();
    return ""_kj;
  };
  auto path = world.here("sock");
  forward(world, {"forward", "web1", "unix:sock", "http"}, [&]() {
    for (int i = 0; i < 3; ++i) {
      auto fd = connectTo(path);
      send(fd, "x");
      CHECK((receive(fd) == ""));
      usleep(100'000);
    }
    world.notRunning = false;
    world.control.denied.add(kj::str("service.http"));
    receive(connectTo(path));
    world.control.denied.clear();
    world.session.service = echo;
    auto fd = connectTo(path);
    send(fd, "z");
    CHECK((receive(fd, 1) == "z"));
  });
  CHECK(contains(world.errors(), "postern: web1: posternd is not running"));
  CHECK(contains(world.errors(), "postern: web1: service.http: denied: no rule allows it"));
}

TEST_CASE("forward: a local address that is taken, or that cannot be, is said before anything else") {
  CliWorld world;
  TakenPort taken;
  CHECK(world.run({"forward", "web1", kj::str(taken.number), "http"}) == ExitStatus::FAILED);
  CHECK(world.errors().startsWith(kj::str("postern: cannot listen on tcp:127.0.0.1:", taken.number, ": ")));
  CHECK(world.run({"forward", "web1", "unix:no/such/folder", "http"}) == ExitStatus::FAILED);
  CHECK(contains(world.errors(), kj::str("cannot listen on unix:", world.here("no/such/folder"), ": ")));
  CHECK_TEXT(world.output(), "");

  // Another one's socket, that is in use, stays.
  auto path = world.here("used");
  kj::AutoCloseFd other(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  auto address = unixAddress(path);
  KJ_SYSCALL(bind(other, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
  KJ_SYSCALL(listen(other, 1));
  CHECK(world.run({"forward", "web1", "unix:used", "http"}) == ExitStatus::FAILED);
  CHECK(std::filesystem::exists(path.cStr()));
}

TEST_CASE("forward: denied at the beginning is the exit status, and nobody listens") {
  CliWorld world;
  world.control.denied.add(kj::str("service.http"));
  CHECK(world.run({"forward", "web1", "unix:sock", "http"}) == ExitStatus::DENIED);
  CHECK(!std::filesystem::exists(world.here("sock").cStr()));
  CHECK(contains(world.errors(), "[[allow]]"));
}
