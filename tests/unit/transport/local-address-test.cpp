#include "transport/service/local-address.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <fstream>
#include <string>

#include "tests/support/comes-to.h"
#include "tests/unit/transport/temp-dir.h"

namespace postern {
namespace {

using Result = kj::OneOf<kj::AutoCloseFd, TransportError>;

LocalAddress address(kj::StringPtr text) {
  auto parsed = parseLocalAddress(text);
  KJ_IF_MAYBE (error, parsed.tryGet<LocalAddressError>()) FAIL(error->text.cStr());
  return kj::mv(parsed.get<LocalAddress>());
}

std::string errorOf(kj::StringPtr text) {
  auto parsed = parseLocalAddress(text);
  if (parsed.is<LocalAddress>()) return "none";
  return parsed.get<LocalAddressError>().text.cStr();
}

struct Fixture {
  TempDir dir;
  kj::UnixEventPort port;
  kj::EventLoop loop{port};
  kj::WaitScope scope{loop};

  kj::String path(kj::StringPtr name) { return kj::str("unix:", dir.file(name)); }
  Result connect(const LocalAddress& to, kj::Duration deadline = 5 * kj::SECONDS) {
    return port.getTimer().timeoutAfter(30 * kj::SECONDS, connectLocal(port, to, deadline)).wait(scope);
  }
  std::string refusal(const LocalAddress& to, kj::Duration deadline = 5 * kj::SECONDS) {
    auto result = connect(to, deadline);
    return result.is<TransportError>() ? result.get<TransportError>().text.cStr() : "connected";
  }
  kj::AutoCloseFd connected(const LocalAddress& to) {
    auto result = connect(to);
    KJ_IF_MAYBE (error, result.tryGet<TransportError>()) FAIL(error->text.cStr());
    return kj::mv(result.get<kj::AutoCloseFd>());
  }
  kj::AutoCloseFd listening(const LocalAddress& on, mode_t mode = 0600) {
    auto result = listenLocal(on, mode);
    KJ_IF_MAYBE (error, result.tryGet<TransportError>()) FAIL(error->text.cStr());
    return kj::mv(result.get<kj::AutoCloseFd>());
  }
  std::string listenError(const LocalAddress& on) {
    auto result = listenLocal(on, 0600);
    return result.is<TransportError>() ? result.get<TransportError>().text.cStr() : "listens";
  }
};

// Where a listener on port 0 listens.
LocalAddress boundAddress(int listener) {
  sockaddr_in6 bound{};
  socklen_t size = sizeof(bound);
  KJ_SYSCALL(getsockname(listener, reinterpret_cast<sockaddr*>(&bound), &size));
  // The port is at the same place in both families.
  return address(kj::str(bound.sin6_family == AF_INET6 ? "tcp:[::1]:" : "tcp:127.0.0.1:", ntohs(bound.sin6_port)));
}

void checkFlags(int socket) {
  CHECK((fcntl(socket, F_GETFD) & FD_CLOEXEC) != 0);
  CHECK((fcntl(socket, F_GETFL) & O_NONBLOCK) != 0);
}

TEST_CASE("an address is read and written the same") {
  for (auto text : {"tcp:127.0.0.1:80", "tcp:0.0.0.0:0", "tcp:[::1]:65535", "tcp:[fe80::1]:1", "unix:/run/app.sock",
                    "unix:/run/a:b", "unix:@name", "unix:/run/with space"}) {
    CHECK(kj::str(address(text)) == text);
  }
  CHECK(kj::str(address("tcp:localhost:80")) == "tcp:127.0.0.1:80");
  CHECK(address("tcp:[::1]:80").get<TcpAddress>().isSix);
  auto longest = kj::str("unix:/", std::string(106, 'a').c_str());
  CHECK(kj::str(address(longest)) == longest);
}

// T96
TEST_CASE("what is no address is refused with what to write") {
  struct {
    kj::StringPtr text;
    const char* error;
  } bad[] = {
      {"", "'' is no address; write tcp:127.0.0.1:PORT, tcp:[::1]:PORT or unix:/PATH"},
      {"http://x", "'http://x' is no address; write tcp:127.0.0.1:PORT, tcp:[::1]:PORT or unix:/PATH"},
      {"/run/x", "a path alone; write unix:/run/x"},
      {"tcp:", "'tcp:' has no port; write tcp:127.0.0.1:PORT"},
      {"tcp:80", "'tcp:80' has no port; write tcp:127.0.0.1:PORT"},
      {"tcp:127.0.0.1", "'tcp:127.0.0.1' has no port; write tcp:127.0.0.1:PORT"},
      {"tcp:127.0.0.1:", "the port is ''; write a number to 65535"},
      {"tcp:127.0.0.1:65536", "the port is '65536'; write a number to 65535"},
      {"tcp:127.0.0.1:080", "the port is '080'; write a number to 65535"},
      {"tcp:127.0.0.1:+8", "the port is '+8'; write a number to 65535"},
      {"tcp:127.0.0.1:8x", "the port is '8x'; write a number to 65535"},
      {"tcp::80", "'' is no address; write it in numbers, as in tcp:127.0.0.1:80, since no names are looked up"},
      {"tcp:db.internal:80",
       "'db.internal' is no address; write it in numbers, as in tcp:127.0.0.1:80, since no names are looked up"},
      {"tcp:127.1:80",
       "'127.1' is no address; write it in numbers, as in tcp:127.0.0.1:80, since no names are looked up"},
      {"tcp:::1:80", "'::1' is no address; an IPv6 address stands in brackets, as in tcp:[::1]:80"},
      {"tcp:[::1:80",
       "'[::1' is no address; write it in numbers, as in tcp:127.0.0.1:80, since no names are looked up"},
      {"tcp:[127.0.0.1]:80",
       "'[127.0.0.1]' is no address; write it in numbers, as in tcp:127.0.0.1:80, since no names are looked up"},
      {"unix:", "unix: without a path; write unix:/path/to/it"},
      {"unix:run/x", "unix: the path 'run/x' is relative; write it in full, from the root '/'"},
      {"unix:/run/", "unix: the path '/run/' names a folder; name the file in it"},
      {"unix:/run/\n", "unix: the path has a control character (NUL, a line's end); remove it or rename the file"},
      {"unix:@", "'unix:@' wants a name without control characters"},
  };
  for (auto& one : bad) CHECK(errorOf(one.text) == one.error);
  CHECK(errorOf(kj::str("unix:/", std::string(107, 'a').c_str())) ==
        "unix: the path has 108 bytes, and a socket's address has room for 107; use a shorter folder");
  CHECK(errorOf(kj::str("unix:@", std::string(107, 'a').c_str())).find("there is room for 107") != std::string::npos);
  CHECK(errorOf(kj::StringPtr("tcp:127.0.0.1:80\0x", 18)).find("NUL") != std::string::npos);
  CHECK(errorOf(kj::StringPtr("unix:/run/x\0y", 13)).find("NUL") != std::string::npos);
}

TEST_CASE("a connection is made to each kind of listener, without delay and close-on-exec") {
  Fixture f;
  kj::String texts[] = {kj::str("tcp:127.0.0.1:0"), kj::str("tcp:[::1]:0"), f.path("s"),
                        kj::str("unix:@postern-test-", getpid())};
  for (auto& text : texts) {
    auto on = address(text);
    auto listener = f.listening(on);
    checkFlags(listener);
    auto to = on.is<TcpAddress>() ? boundAddress(listener) : address(text);
    auto socket = f.connected(to);
    checkFlags(socket);
    kj::AutoCloseFd accepted(accept(listener, nullptr, nullptr));
    REQUIRE(accepted.get() >= 0);
    CHECK(send(socket, "hi", 2, MSG_NOSIGNAL) == 2);
    fcntl(accepted, F_SETFL, 0);
    char got[8];
    CHECK(recv(accepted, got, sizeof(got), 0) == 2);
    if (!on.is<TcpAddress>()) continue;
    int value = 0;
    socklen_t size = sizeof(value);
    KJ_SYSCALL(getsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &value, &size));
    CHECK(value == 1);
  }
}

// T96
TEST_CASE("why there is no connection is told in few words, without the address") {
  Fixture f;
  kj::Maybe<LocalAddress> gone;
  {
    auto listener = f.listening(address("tcp:127.0.0.1:0"));
    gone = boundAddress(listener);
  }
  auto before = test::settled(openDescriptors);
  CHECK(f.refusal(KJ_REQUIRE_NONNULL(gone)) == "connection refused");
  auto refused = f.connect(KJ_REQUIRE_NONNULL(gone));
  CHECK(refused.get<TransportError>().nobodyListens);
  CHECK(f.refusal(address(f.path("none"))) == "there is no such socket");
  CHECK(f.connect(address(f.path("none"))).get<TransportError>().nobodyListens);
  { auto dead = f.listening(address(f.path("dead"))); }
  CHECK(f.refusal(address(f.path("dead"))) == "connection refused");
  std::ofstream(f.dir.file("plain").cStr()) << "x";
  CHECK(f.refusal(address(f.path("plain"))) == "connection refused");
  CHECK(f.refusal(address(kj::str("unix:@postern-test-none-", getpid()))) == "connection refused");
  CHECK(openDescriptors() == before);
}

TEST_CASE("without a descriptor there is no connection, and no exception") {
  Fixture f;
  auto listener = f.listening(address(f.path("s")));
  NoDescriptors none;
  CHECK(f.refusal(address(f.path("s"))) == "Too many open files");
}

// T96
TEST_CASE("a listener whose queue is full is waited for until the deadline, and no longer") {
  Fixture f;
  for (bool tcp : {true, false}) {
    CAPTURE(tcp);
    auto on = tcp ? address("tcp:127.0.0.1:0") : address(f.path("full"));
    auto listener = f.listening(on);
    KJ_SYSCALL(listen(listener, 0));  // a queue of one
    auto to = tcp ? boundAddress(listener) : address(f.path("full"));
    kj::Vector<kj::AutoCloseFd> waiting;
    std::string error;
    for (int i = 0; i < 8 && error.empty(); ++i) {
      auto result = f.connect(to, 300 * kj::MILLISECONDS);
      KJ_IF_MAYBE (failed, result.tryGet<TransportError>()) {
        error = failed->text.cStr();
      } else {
        waiting.add(kj::mv(result.get<kj::AutoCloseFd>()));
      }
    }
    CHECK(error == "it does not answer");

    // Room that comes in time is used.
    auto late = connectLocal(f.port, to, 20 * kj::SECONDS).eagerlyEvaluate(nullptr);
    f.port.getTimer().afterDelay(100 * kj::MILLISECONDS).wait(f.scope);
    CHECK_FALSE(late.poll(f.scope));
    while (true) {
      kj::AutoCloseFd taken(accept(listener, nullptr, nullptr));
      if (taken.get() < 0) break;
    }
    CHECK(f.port.getTimer().timeoutAfter(30 * kj::SECONDS, kj::mv(late)).wait(f.scope).is<kj::AutoCloseFd>());
  }
}

TEST_CASE("a connection attempt that nobody waits for any more leaves nothing open") {
  Fixture f;
  auto listener = f.listening(address("tcp:127.0.0.1:0"));
  auto before = test::settled(openDescriptors);
  {
    auto attempt = connectLocal(f.port, boundAddress(listener), 5 * kj::SECONDS);
    CHECK(openDescriptors() == before + 1);
  }
  CHECK(openDescriptors() == before);
}

TEST_CASE("a Unix socket has the mode that it is given, whatever the umask, and is taken over only from the dead") {
  Fixture f;
  auto on = address(f.path("s"));
  mode_t umaskBefore = umask(077);
  kj::Maybe<kj::AutoCloseFd> listener;
  for (mode_t mode : {0666u, 0600u, 0660u, 0666u}) {
    listener = f.listening(on, mode);  // the one before is still open while this one is made
    struct stat info;
    REQUIRE(stat(f.dir.file("s").cStr(), &info) == 0);
    CHECK((info.st_mode & 07777) == mode);
    CHECK(f.listenError(on).find("it is in use") != std::string::npos);
    CHECK(f.connect(on).is<kj::AutoCloseFd>());
    listener = nullptr;
  }
  umask(umaskBefore);
  // Dead: the name stays, is taken over, and goes when it is asked to.
  struct stat info;
  CHECK(lstat(f.dir.file("s").cStr(), &info) == 0);
  listener = f.listening(on);
  removeLocal(on);
  CHECK(lstat(f.dir.file("s").cStr(), &info) == 0);  // somebody listens
  listener = nullptr;
  removeLocal(on);
  CHECK(lstat(f.dir.file("s").cStr(), &info) < 0);
  removeLocal(on);
  // Nothing is left beside it.
  CHECK(std::filesystem::is_empty(f.dir.path().cStr()));
}

TEST_CASE("a name that a file, a link or a folder has is not taken, and nothing is removed") {
  Fixture f;
  std::ofstream(f.dir.file("file").cStr()) << "content";
  KJ_SYSCALL(mkdir(f.dir.file("folder").cStr(), 0700));
  KJ_SYSCALL(symlink("/nowhere", f.dir.file("link").cStr()));
  for (auto name : {"file", "folder", "link"}) {
    auto on = address(f.path(name));
    CHECK(f.listenError(on).find("a file that is no socket has this name") != std::string::npos);
    removeLocal(on);
    struct stat info;
    CHECK(lstat(f.dir.file(name).cStr(), &info) == 0);
  }
  CHECK(f.listenError(address(f.path("no/such/folder"))).find("cannot be opened") != std::string::npos);
}

TEST_CASE("a port that another program has is told, and one of a program that has ended is free at once") {
  Fixture f;
  kj::Maybe<LocalAddress> on;
  {
    auto listener = f.listening(address("tcp:127.0.0.1:0"));
    on = boundAddress(listener);
    auto& taken = KJ_REQUIRE_NONNULL(on);
    CHECK(f.listenError(taken) == kj::str("cannot listen on ", taken, ": another program listens there").cStr());
    // A connection that this end closes first is left in TIME_WAIT.
    auto client = f.connected(taken);
    kj::AutoCloseFd accepted(accept(listener, nullptr, nullptr));
  }
  f.listening(KJ_REQUIRE_NONNULL(on));
  CHECK(f.listenError(address("tcp:192.0.2.1:0")).find("this machine does not have that address") != std::string::npos);
}

}  // namespace
}  // namespace postern
