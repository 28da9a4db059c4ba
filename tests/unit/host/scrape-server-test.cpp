// The metrics' HTTP server over real sockets: who asks well is answered, who does not costs what it may.

#include "host/metrics/scrape-server.h"

#include <doctest/doctest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "tests/support/temporary-folder.h"

namespace postern::host {
namespace {

using test::TemporaryFolder;

class Lab {
 public:
  TemporaryFolder folder;
  kj::AsyncIoContext io = kj::setupAsyncIo();
  LocalAddress address = UnixAddress{folder.path("metrics.sock")};
  unsigned pages = 0;
  kj::String page = kj::str("m 1\n");
  kj::Maybe<kj::Own<ScrapeServer>> server;

  Lab() {
    auto listening = listenForScrapers(address, getegid());
    REQUIRE(listening.is<kj::AutoCloseFd>());
    server = kj::heap<ScrapeServer>(io, kj::mv(listening.get<kj::AutoCloseFd>()), [this]() {
      ++pages;
      return kj::str(page);
    });
  }

  kj::AutoCloseFd dial() {
    struct sockaddr_un name {};
    name.sun_family = AF_UNIX;
    auto path = folder.path("metrics.sock");
    memcpy(name.sun_path, path.begin(), path.size());
    int fd;
    KJ_SYSCALL(fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    kj::AutoCloseFd socket(fd);
    KJ_SYSCALL(::connect(fd, reinterpret_cast<struct sockaddr*>(&name), sizeof(name)));
    return socket;
  }
  kj::Own<kj::AsyncIoStream> connect() { return io.lowLevelProvider->wrapSocketFd(dial()); }
  kj::String answerOn(kj::AsyncIoStream& stream) {
    auto text =
        kj::evalNow([&]() { return stream.readAllText(); }).catch_([](kj::Exception&&) { return kj::str("(reset)"); });
    return io.provider->getTimer().timeoutAfter(30 * kj::SECONDS, kj::mv(text)).wait(io.waitScope);
  }
  kj::String ask(kj::StringPtr request) {
    auto stream = connect();
    stream->write(request.begin(), request.size()).catch_([](kj::Exception&&) {}).wait(io.waitScope);
    return answerOn(*stream);
  }
  kj::String get(kj::StringPtr path = "/metrics") { return ask(kj::str("GET ", path, " HTTP/1.1\r\nHost: h\r\n\r\n")); }
  void pass(kj::Duration time) { io.provider->getTimer().afterDelay(time).wait(io.waitScope); }
};

bool has(kj::StringPtr text, kj::StringPtr part) {
  return strstr(text.cStr(), part.cStr()) != nullptr;
}

TEST_CASE("a scraper gets the page, its type and its size, and then the connection ends") {
  Lab lab;
  auto answer = lab.get();
  CHECK(answer.startsWith("HTTP/1.1 200 OK\r\n"));
  CHECK(has(answer, "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n"));
  CHECK(has(answer, "Content-Length: 4\r\n"));
  CHECK(has(answer, "Connection: close\r\n"));
  CHECK(answer.endsWith("\r\n\r\nm 1\n"));
  CHECK(lab.get("/metrics?collect=all").endsWith("\r\n\r\nm 1\n"));
}

TEST_CASE("HEAD gets no page; another method and another path get an error, and one that is no HTTP does") {
  Lab lab;
  auto head = lab.ask("HEAD /metrics HTTP/1.1\r\nHost: h\r\n\r\n");
  CHECK(head.startsWith("HTTP/1.1 200 OK\r\n"));
  CHECK(head.endsWith("\r\n\r\n"));
  for (auto method : {"POST", "PUT", "DELETE", "OPTIONS"}) {
    INFO(method);
    auto answer = lab.ask(kj::str(method, " /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n"));
    CHECK(answer.startsWith("HTTP/1.1 405 "));
    CHECK(has(answer, "Allow: GET, HEAD\r\n"));
  }
  for (auto path : {"/", "/metricsx", "/metrics/", "/../metrics", "*"}) {
    INFO(path);
    CHECK(lab.get(path).startsWith("HTTP/1.1 404 "));
  }
  for (auto request : {"\r\n\r\n", "GET\r\n\r\n", "FETCH /metrics HTTP/1.1\r\n\r\n",
                       "\x16\x03\x01\x02 a TLS hello\r\n\r\n", "GET /metrics HTTP/1.1\r\nno header\r\n\r\n"}) {
    INFO(request);
    auto answer = lab.ask(request);
    CHECK_FALSE(has(answer, "m 1"));
    CHECK_FALSE(has(answer, ".c++"));  // nothing of KJ's inside
  }
  CHECK(lab.pages == 1);
  CHECK(lab.get().endsWith("m 1\n"));
}

TEST_CASE("a request that is too large is cut off, and a body is not waited for") {
  Lab lab;
  auto large = kj::str("GET /metrics HTTP/1.1\r\nX: ", kj::repeat('a', 1 << 20), "\r\n\r\n");
  CHECK_FALSE(has(lab.ask(large), "m 1"));
  auto many = kj::str("GET /metrics HTTP/1.1\r\n", kj::strArray(kj::repeat("X: 1\r\n"_kj, 100'000), ""), "\r\n");
  CHECK_FALSE(has(lab.ask(many), "m 1"));
  auto began = kj::systemPreciseMonotonicClock().now();
  CHECK(
      lab.ask("POST /metrics HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\nabc").startsWith("HTTP/1.1 405"));
  CHECK(kj::systemPreciseMonotonicClock().now() - began < SCRAPE_DEADLINE);
  CHECK(lab.get().endsWith("m 1\n"));
}

TEST_CASE("one that does not read, and one that does not ask, are cut off at the deadline, and hold up nobody") {
  Lab lab;
  lab.page = kj::str(kj::repeat('x', 16 << 20), "\n");
  auto silent = lab.connect();
  auto slow = lab.connect();
  auto request = "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"_kj;
  slow->write(request.begin(), request.size()).wait(lab.io.waitScope);
  lab.pass(PAGE_LASTS * 2);
  lab.page = kj::str("m 2\n");
  CHECK(lab.get().endsWith("m 2\n"));
  lab.pass(SCRAPE_DEADLINE + 1 * kj::SECONDS);
  CHECK_FALSE(lab.answerOn(*slow).endsWith("xx\n"));
  CHECK_FALSE(has(lab.answerOn(*silent), "200 OK"));
  CHECK(lab.get().endsWith("m 2\n"));
}

TEST_CASE("those above MAX_SCRAPERS wait until one has gone, and are answered then") {
  Lab lab;
  kj::Vector<kj::Own<kj::AsyncIoStream>> idle;
  for (unsigned i = 0; i < MAX_SCRAPERS; ++i) idle.add(lab.connect());
  auto late = lab.connect();
  auto request = "GET /metrics HTTP/1.1\r\nHost: h\r\n\r\n"_kj;
  late->write(request.begin(), request.size()).wait(lab.io.waitScope);
  lab.pass(1 * kj::SECONDS);
  CHECK(lab.pages == 0);
  idle[0] = nullptr;
  CHECK(lab.answerOn(*late).endsWith("m 1\n"));
}

TEST_CASE("a flood of scrapes makes a page now and then, and comes at SCRAPES_PER_SECOND") {
  Lab lab;
  auto began = kj::systemPreciseMonotonicClock().now();
  unsigned answered = 0;
  constexpr unsigned FLOOD = SCRAPE_BURST + 2 * SCRAPES_PER_SECOND;
  for (unsigned i = 0; i < FLOOD; ++i) answered += lab.get().endsWith("m 1\n");
  auto took = kj::systemPreciseMonotonicClock().now() - began;
  CHECK(answered == FLOOD);
  CHECK(took >= 1500 * kj::MILLISECONDS);
  CHECK(lab.pages <= unsigned(took / PAGE_LASTS) + 2);
}

TEST_CASE("a page that cannot be made is an error without a word of why, and the next may be good") {
  Lab lab;
  bool fails = true;
  lab.server = nullptr;
  removeLocal(lab.address);
  auto listening = listenForScrapers(lab.address, nullptr);
  lab.server = kj::heap<ScrapeServer>(lab.io, kj::mv(listening.get<kj::AutoCloseFd>()), [&]() -> kj::String {
    if (fails) KJ_FAIL_REQUIRE("a secret");
    return kj::str("m 3\n");
  });
  auto answer = lab.get();
  CHECK(answer.startsWith("HTTP/1.1 500 "));
  CHECK_FALSE(has(answer, "secret"));
  fails = false;
  CHECK(lab.get().endsWith("m 3\n"));
}

TEST_CASE("the socket is for its group; where there is no folder there is an error for a person, and no socket") {
  Lab lab;
  struct stat status;
  REQUIRE(stat(lab.folder.path("metrics.sock").cStr(), &status) == 0);
  CHECK((status.st_mode & 0777) == 0660);
  CHECK(status.st_gid == getegid());
  auto none = listenForScrapers(UnixAddress{lab.folder.path("none/metrics.sock")}, nullptr);
  REQUIRE(none.is<kj::String>());
  CHECK(has(none.get<kj::String>(), "none/metrics.sock"));
}

}  // namespace
}  // namespace postern::host
