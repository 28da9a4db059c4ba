// postern connect: bytes, ends and exit status.

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>
#include <thread>

#include "tests/unit/cli/cli-fixture.h"
#include "tests/unit/cli/cli-json-reader.h"

using namespace postern;
using namespace postern::test;
using Kind = hs::Failure::Kind;
using Mode = Behaviour::Mode;

namespace {

struct Pipe {
  kj::AutoCloseFd out, in;  // what goes in comes out

  Pipe() {
    int ends[2];
    KJ_SYSCALL(pipe2(ends, O_CLOEXEC));
    out = kj::AutoCloseFd(ends[0]);
    in = kj::AutoCloseFd(ends[1]);
  }
};

void send(int fd, const std::string& text) {
  size_t done = 0;
  while (done < text.size()) {
    ssize_t n = ::write(fd, text.data() + done, text.size() - done);
    REQUIRE(n > 0);
    done += size_t(n);
  }
}

std::string receiveAll(int fd) {
  std::string all;
  char buffer[65536];
  for (ssize_t n; (n = ::read(fd, buffer, sizeof(buffer))) > 0;) all.append(buffer, size_t(n));
  return all;
}
std::string receive(int fd, size_t bytes) {
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

// Bytes that show where they are.
std::string pattern(size_t bytes) {
  std::string text(bytes, '\0');
  uint32_t state = 1;
  for (auto& c : text) c = char((state = state * 1664525 + 1013904223) >> 24);
  return text;
}

// A world whose input and output are pipes, of which the test has the other ends.
struct Connected {
  CliWorld world;
  Pipe input, output;

  Connected() {
    world.input = kj::mv(input.out);
    world.outputFile = kj::mv(output.in);
  }
  ExitStatus run() { return world.run({"connect", "web1", "ssh"}); }
};

}  // namespace

TEST_CASE("connect: what goes in comes to the service, and what it sends comes out, 64 MiB of it exactly") {
  Connected test;
  test.world.session.service = echo;
  auto sent = pattern(64 << 20);
  std::string got;
  std::thread writer([&]() {
    send(test.input.in, sent);
    test.input.in = nullptr;
  });
  std::thread reader([&]() { got = receiveAll(test.output.out); });
  CHECK(test.run() == ExitStatus::DONE);
  writer.join();
  reader.join();
  CHECK((got == sent));
  CHECK_TEXT(test.world.control.opened[0], "web1 service.ssh ");
  CHECK_TEXT(test.world.session.connected[0], "ssh");
  CHECK_TEXT(test.world.errors(), "");
  CHECK_TEXT(test.world.output(), "");
}

TEST_CASE("connect: each byte goes on when it comes, in either direction") {
  Connected test;
  test.world.session.service = echo;
  std::string got;
  std::thread user([&]() {
    for (char c : std::string("a dialogue")) {
      send(test.input.in, std::string(1, c));
      got += receive(test.output.out, 1);
    }
    test.input.in = nullptr;
  });
  CHECK(test.run() == ExitStatus::DONE);
  user.join();
  CHECK((got == "a dialogue"));
}

TEST_CASE("connect: the input's end ends its direction only") {
  Connected test;
  std::string asked;
  test.world.session.service = [&](int fd) {
    asked = receiveAll(fd);
    send(fd, "answer");
    shutdown(fd, SHUT_WR);
    return "finished"_kj;
  };
  send(test.input.in, "question");
  test.input.in = nullptr;
  CHECK(test.run() == ExitStatus::DONE);
  CHECK((asked == "question"));
  CHECK((receiveAll(test.output.out) == "answer"));
}

TEST_CASE("connect: the service's end ends its direction only, and whoever reads the output sees it") {
  Connected test;
  std::string asked, answered;
  test.world.session.service = [&](int fd) {
    send(fd, "greeting");
    shutdown(fd, SHUT_WR);
    asked = receiveAll(fd);
    return "finished"_kj;
  };
  std::thread user([&]() {
    answered = receiveAll(test.output.out);
    send(test.input.in, "too late");
    test.input.in = nullptr;
  });
  CHECK(test.run() == ExitStatus::DONE);
  user.join();
  CHECK((answered == "greeting"));
  CHECK((asked == "too late"));
}

TEST_CASE("connect: a reset is exit status 1 and a line, also where the socket alone looks as at an end in order") {
  for (bool inputEnded : {false, true}) {
    Connected test;
    test.world.session.service = [](int fd) {
      send(fd, "half of it");
      shutdown(fd, SHUT_RDWR);
      return "reset"_kj;
    };
    if (inputEnded) test.input.in = nullptr;
    CHECK(test.run() == ExitStatus::FAILED);
    CHECK_TEXT(test.world.errors(), "postern: web1: the connection to service 'ssh' was reset by the other end\n");
    CHECK((receiveAll(test.output.out) == "half of it"));
  }
}

TEST_CASE("connect: a service that has said all, and takes no more, is no failure") {
  Connected test;
  std::string answered;
  test.world.session.service = [](int fd) {
    send(fd, "all");
    shutdown(fd, SHUT_WR);
    receive(fd, 4);
    shutdown(fd, SHUT_RDWR);
    return "reset"_kj;
  };
  std::thread user([&]() {
    answered = receiveAll(test.output.out);
    // The program has to have seen the end, too, before the service ends.
    usleep(200'000);
    send(test.input.in, "more");
  });
  CHECK(test.run() == ExitStatus::DONE);
  user.join();
  CHECK((answered == "all"));
}

TEST_CASE("connect: the end of a link, a cut and a session that goes have their own words") {
  struct Case {
    kj::StringPtr why;
    ExitStatus status;
    kj::StringPtr says;
  };
  for (auto& one : {Case{"link-ended", ExitStatus::NOT_CONNECTED, "ended, because the link to the VM did"},
                    Case{"cut", ExitStatus::FAILED, "was closed on the host"},
                    Case{"", ExitStatus::FAILED, "was reset by the other end"},
                    Case{"nonsense \033[2J", ExitStatus::FAILED, "was reset by the other end"}}) {
    CAPTURE(one.why.cStr());
    Connected test;
    test.world.session.service = [&](int fd) {
      shutdown(fd, SHUT_RDWR);
      return one.why;
    };
    CHECK(test.run() == one.status);
    CHECK(contains(test.world.errors(), kj::str("postern: web1: the connection to service 'ssh' ", one.says)));
  }
}

TEST_CASE("connect: a session process that is killed is said to have ended") {
  Connected test;
  test.world.session.service = [&](int fd) {
    receive(fd, 1);
    test.world.session.behaviour.vanish();
    shutdown(fd, SHUT_RDWR);
    return ""_kj;
  };
  send(test.input.in, "x");
  CHECK(test.run() == ExitStatus::FAILED);
  CHECK(contains(test.world.errors(), "ended, because the VM's session process did"));
}

TEST_CASE("connect: what was cut because policy forbids it now is denied, with what would allow it") {
  Connected test;
  test.world.session.service = [&](int fd) {
    test.world.control.denied.add(kj::str("service.ssh"));
    shutdown(fd, SHUT_RDWR);
    return "cut"_kj;
  };
  CHECK(test.run() == ExitStatus::DENIED);
  CHECK(contains(test.world.errors(), "postern: web1: service.ssh: denied: no rule allows it"));
  CHECK(contains(test.world.errors(), "to allow it, in a file of the host's /etc/postern/policy.d:\n  [[allow]]"));
}

TEST_CASE("connect: whoever refuses, the exit status says how") {
  struct Case {
    Kind kind;
    ExitStatus status;
  };
  for (auto one : {Case{Kind::DENIED, ExitStatus::DENIED}, Case{Kind::NOT_CONNECTED, ExitStatus::NOT_CONNECTED},
                   Case{Kind::REFUSED, ExitStatus::REFUSED}, Case{Kind::FAILED, ExitStatus::REFUSED},
                   Case{Kind::TIMED_OUT, ExitStatus::TIMED_OUT}}) {
    Connected test;
    test.world.session.behaviour.mode = Mode::FAIL;
    test.world.session.behaviour.kind = one.kind;
    test.world.session.behaviour.lock = hs::Failure::Lock::GUEST;
    test.world.session.behaviour.suggestion = "[[allow]]\nid = \"x\"";
    CHECK(test.run() == one.status);
    CHECK(contains(test.world.errors(), "postern: web1: service 'ssh': it does not work"));
    CHECK(contains(test.world.errors(), "[[allow]]") == (one.kind == Kind::DENIED));
  }
}

TEST_CASE(
    "connect: what posternd denies does not come to the session, and a session that does not answer is not waited "
    "for") {
  {
    Connected denied;
    denied.world.control.denied.add(kj::str("service.ssh"));
    CHECK(denied.run() == ExitStatus::DENIED);
    CHECK(denied.world.session.connected.empty());
  }
  Connected silent;
  silent.world.session.behaviour.mode = Mode::SILENT;
  CHECK(silent.world.run({"connect", "web1", "ssh", "--timeout", "100ms"}) == ExitStatus::TIMED_OUT);
}

TEST_CASE("connect: it ends at once when the output's reader has gone, though nothing comes and the input is open") {
  Connected test;
  test.world.session.service = [&](int fd) {
    char byte;
    // Until the program has closed its end.
    while (::read(fd, &byte, 1) > 0) {
    }
    return "reset"_kj;
  };
  std::thread reader([&]() {
    usleep(50'000);
    test.output.out = nullptr;
  });
  CHECK(test.run() == ExitStatus::FAILED);
  reader.join();
  CHECK_TEXT(test.world.errors(), "");
}

TEST_CASE("connect: an output that is full is a failure, and files are as good as pipes") {
  {
    Connected test;
    test.world.session.service = echo;
    test.world.outputFile = kj::AutoCloseFd(open("/dev/full", O_WRONLY | O_CLOEXEC));
    send(test.input.in, "x");
    CHECK(test.run() == ExitStatus::FAILED);
    CHECK_TEXT(test.world.errors(), "postern: cannot write the output: No space left on device\n");
  }
  CliWorld files;
  files.session.service = echo;
  auto sent = pattern(300'000);
  kj::AutoCloseFd file(open(files.here("in").cStr(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
  send(file, sent);
  lseek(file, 0, SEEK_SET);
  files.input = kj::mv(file);
  files.outputFile = kj::AutoCloseFd(open(files.here("out").cStr(), O_WRONLY | O_CREAT | O_CLOEXEC, 0600));
  CHECK(files.run({"connect", "web1", "ssh"}) == ExitStatus::DONE);
  kj::AutoCloseFd out(open(files.here("out").cStr(), O_RDONLY | O_CLOEXEC));
  CHECK((receiveAll(out) == sent));
}

TEST_CASE("connect: Ctrl-C ends it, and the service sees the end") {
  Connected test;
  test.world.session.service = [](int fd) {
    receiveAll(fd);
    return "reset"_kj;
  };
  test.world.interruptAfter(50 * kj::MILLISECONDS);
  CHECK(test.run() == ExitStatus::INTERRUPTED);
  CHECK_TEXT(test.world.errors(), "");
}

TEST_CASE("connect: with --json a failure is a document") {
  Connected test;
  test.world.control.denied.add(kj::str("service.ssh"));
  CHECK(test.world.run({"connect", "web1", "ssh", "--json"}) == ExitStatus::DENIED);
  CHECK_TEXT(JsonReader::read(test.world.output())["error"]["kind"].text(), "denied");
}

TEST_CASE("services: those that the guest exports to the caller and the host's policy grants, in order") {
  CliWorld world;
  for (auto name : {"ssh", "http", "postgres", "bad name", "x\033[2J", ""}) world.session.exported.add(kj::str(name));
  world.control.denied.add(kj::str("service.postgres"));
  CHECK(world.run({"services", "web1"}) == ExitStatus::DONE);
  CHECK_TEXT(world.output(), "http\nssh\n");
  CHECK_TEXT(world.control.opened[0], "web1 service.* ");
  CHECK(world.run({"services", "web1", "--json"}) == ExitStatus::DONE);
  auto document = JsonReader::read(world.output());
  CHECK_TEXT(document["vm"].text(), "web1");
  CHECK_TEXT(document["services"].at(1).text(), "ssh");
}

TEST_CASE("services: many are asked for in portions, and none is no failure") {
  CliWorld world;
  for (int i = 0; i < 40; ++i) {
    world.session.exported.add(kj::str("s", i));
    // All of one portion.
    if (i >= 10 && i < 30) world.control.denied.add(kj::str("service.s", i));
  }
  CHECK(world.run({"services", "web1"}) == ExitStatus::DONE);
  size_t lines = 0;
  for (char c : world.output()) lines += c == '\n';
  CHECK(lines == 20);
}

TEST_CASE("services: none is no failure, unless nobody may ask") {
  CliWorld nothing;
  CHECK(nothing.run({"services", "web1"}) == ExitStatus::DONE);
  CHECK_TEXT(nothing.output(), "");
  nothing.control.denied.add(kj::str("service.*"));
  CHECK(nothing.run({"services", "web1"}) == ExitStatus::DENIED);
}
