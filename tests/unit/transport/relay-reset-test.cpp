// A reset of either side at any moment resets the other, at once, and leaves nothing open.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/socket.h>

#include "tests/support/comes-to.h"
#include "tests/unit/transport/relay-lab.h"
#include "tests/unit/transport/temp-dir.h"

namespace postern::test {
namespace {

enum class Moment { IDLE, STREAMING, STALLED, STALLED_THERE, STALLED_BACK, HALF_CLOSED_BY_HOST, HALF_CLOSED_BY_GUEST };
constexpr Moment MOMENTS[] = {Moment::IDLE,
                              Moment::STREAMING,
                              Moment::STALLED,
                              Moment::STALLED_THERE,
                              Moment::STALLED_BACK,
                              Moment::HALF_CLOSED_BY_HOST,
                              Moment::HALF_CLOSED_BY_GUEST};

// A line at such a moment. Programs write and read without waiting, by hand.
struct Stage {
  RelayLab& lab;
  Line line;
  kj::Array<kj::byte> content;
  kj::Promise<void> busy = kj::READY_NOW;

  Stage(RelayLab& lab, SocketKind kind, Moment moment)
      : lab(lab), line(lab.connect(kind)), content(lab.bytes(size_t(4) << 20)) {
    switch (moment) {
      case Moment::IDLE:
        break;
      case Moment::STREAMING:
        busy = stream().eagerlyEvaluate([](kj::Exception&&) {});
        break;
      case Moment::STALLED:
      case Moment::STALLED_THERE:
        fill(line.hostProgram->descriptor());
        if (moment == Moment::STALLED) fill(line.guestProgram->descriptor());
        break;
      case Moment::STALLED_BACK:
        fill(line.guestProgram->descriptor());
        break;
      case Moment::HALF_CLOSED_BY_HOST:
        line.hostProgram->finish();
        break;
      case Moment::HALF_CLOSED_BY_GUEST:
        line.guestProgram->finish();
        break;
    }
    lab.pass(30 * kj::MILLISECONDS);
    if (moment == Moment::STREAMING) return;  // poll() waits for a loop without work
    CHECK_FALSE(line.hostOutcome.poll(lab.waitScope));
    CHECK_FALSE(line.guestOutcome.poll(lab.waitScope));
  }

  kj::Promise<void> stream() {
    auto reading = line.guestProgram->readSome(content).then([](size_t) {});
    return kj::joinPromises(kj::arr(line.hostProgram->write(content.slice(0, 50000)), kj::mv(reading))).then([this] {
      return stream();
    });
  }

  // Until nothing more goes, here and further on.
  void fill(int socket) {
    for (int quiet = 0; quiet < 3;) {
      bool any = false;
      while (send(socket, content.begin(), 65536, MSG_DONTWAIT | MSG_NOSIGNAL) > 0) any = true;
      quiet = any ? 0 : quiet + 1;
      lab.pass(10 * kj::MILLISECONDS);
    }
  }

  // That both ways of it are over, and that it is told so within seconds.
  void checkCut(Program& program) {
    for (int i = 0; i < 500 && !hungUp(program); ++i) lab.pass(10 * kj::MILLISECONDS);
    CHECK(hungUp(program));
    send(program.descriptor(), "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL);
    CHECK(send(program.descriptor(), "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == -1);
  }
  static bool hungUp(Program& program) {
    pollfd asked{program.descriptor(), 0, 0};
    return poll(&asked, 1, 0) == 1 && (asked.revents & POLLHUP) != 0;
  }
};

// The two ends of a busy link each have a duplicate by which they wait for room.
void checkNoneLeft(size_t before) {
  CHECK(openDescriptors() <= before + 2);
}

// Nobody takes what was cut short for the whole.
void checkNoEnd(RelayLab& lab, Program& program) {
  CHECK(lab.await(program.readAll()) == nullptr);
}

// T94
TEST_CASE("a program that resets its socket resets the program at the other end, whatever they are doing") {
  RelayLab lab;
  auto before = test::settled(openDescriptors);
  for (auto moment : MOMENTS) {
    for (bool byHost : {true, false}) {
      CAPTURE(int(moment));
      CAPTURE(byHost);
      {
        Stage stage(lab, SocketKind::TCP, moment);
        auto& line = stage.line;
        stage.busy = kj::READY_NOW;
        (byHost ? line.hostProgram : line.guestProgram)->reset();
        lab.expect(line, RelayOutcome::RESET, RelayOutcome::RESET);
        auto& other = byHost ? *line.guestProgram : *line.hostProgram;
        bool hadEnded = moment == (byHost ? Moment::HALF_CLOSED_BY_HOST : Moment::HALF_CLOSED_BY_GUEST);
        if (!hadEnded) checkNoEnd(lab, other);
        stage.checkCut(other);
      }
    }
  }
  checkNoneLeft(before);
}

// T94
TEST_CASE("a relay that is given up at either end resets both programs") {
  RelayLab lab;
  auto before = test::settled(openDescriptors);
  for (auto kind : SOCKET_KINDS) {
    for (auto moment : MOMENTS) {
      for (bool atHost : {true, false}) {
        CAPTURE(int(moment));
        {
          Stage stage(lab, kind, moment);
          auto& line = stage.line;
          stage.busy = kj::READY_NOW;
          auto& outcome = atHost ? line.hostOutcome : line.guestOutcome;
          outcome = kj::Promise<RelayOutcome>(nullptr);
          (atHost ? line.hostRelay : line.guestRelay) = nullptr;
          CHECK(lab.await(kj::mv(atHost ? line.guestOutcome : line.hostOutcome)) == RelayOutcome::RESET);
          stage.checkCut(*line.hostProgram);
          stage.checkCut(*line.guestProgram);
        }
      }
    }
  }
  checkNoneLeft(before);
}

TEST_CASE("the end of the session resets both programs") {
  for (auto kind : SOCKET_KINDS) {
    for (auto moment : MOMENTS) {
      CAPTURE(int(moment));
      RelayLab lab;
      Stage stage(lab, kind, moment);
      auto& line = stage.line;
      stage.busy = kj::READY_NOW;
      lab.guest = nullptr;
      lab.expect(line, RelayOutcome::SESSION_ENDED, RelayOutcome::SESSION_ENDED);
      stage.checkCut(*line.hostProgram);
      stage.checkCut(*line.guestProgram);
    }
  }
}

// T94
TEST_CASE(
    "a Unix program that closes: all that it said arrives with its end, and what it left unread is a reset behind it") {
  RelayLab lab;
  for (auto moment : {Moment::IDLE, Moment::STALLED, Moment::STALLED_BACK}) {
    CAPTURE(int(moment));
    Stage stage(lab, SocketKind::UNIX, moment);
    auto& line = stage.line;
    size_t said = 0;
    while (moment != Moment::STALLED) {
      ssize_t sent = send(line.hostProgram->descriptor(), stage.content.begin(), 50000, MSG_DONTWAIT | MSG_NOSIGNAL);
      if (sent < 0) break;
      said += size_t(sent);
    }
    line.hostProgram = nullptr;
    // What is written to one that has gone, before it was read to its end.
    auto writing = line.guestProgram->write(stage.content.slice(0, 1)).eagerlyEvaluate([](kj::Exception&&) {});
    lab.pass(50 * kj::MILLISECONDS);
    auto heard = KJ_REQUIRE_NONNULL(lab.await(line.guestProgram->readAll()));
    CHECK(heard.size() >= kj::max(said, size_t(1)));
    lab.expect(line, RelayOutcome::RESET, RelayOutcome::RESET);
    stage.checkCut(*line.guestProgram);
  }
}

// T94
TEST_CASE(
    "a writer that does not read is told within seconds that a Unix program has closed, whatever that one had said") {
  RelayLab lab;
  Stage stage(lab, SocketKind::UNIX, Moment::STALLED);
  stage.line.hostProgram = nullptr;
  lab.pass(3 * kj::SECONDS);
  CHECK_FALSE(stage.line.hostOutcome.poll(lab.waitScope));  // he might still read
  lab.pass(8 * kj::SECONDS);
  lab.expect(stage.line, RelayOutcome::RESET, RelayOutcome::RESET);
  stage.checkCut(*stage.line.guestProgram);
}

TEST_CASE("a Unix program that has gone is a reset to its writer") {
  RelayLab lab;
  Stage stage(lab, SocketKind::UNIX, Moment::IDLE);
  stage.line.hostProgram = nullptr;
  lab.pass(50 * kj::MILLISECONDS);
  CHECK_FALSE(stage.line.hostOutcome.poll(lab.waitScope));
  auto writing = stage.line.guestProgram->write(stage.content.slice(0, 1)).eagerlyEvaluate(nullptr);
  lab.expect(stage.line, RelayOutcome::RESET, RelayOutcome::RESET);
  stage.checkCut(*stage.line.guestProgram);
}

// T97
TEST_CASE("a socket is cut by a duplicate in another's hand, and the program sees a reset and no end") {
  for (auto kind : SOCKET_KINDS) {
    for (auto moment : {Moment::IDLE, Moment::STALLED}) {
      RelayLab lab;
      auto onHost = connectedSockets(kind);
      int copy;
      KJ_SYSCALL(copy = fcntl(onHost.one, F_DUPFD_CLOEXEC, 0));
      kj::AutoCloseFd duplicate(copy);
      auto channels = lab.openChannel();
      Program program(lab.io, kj::mv(onHost.other));
      Relay relay(kj::mv(channels.host), newSocketEnd(lab.io.unixEventPort, kj::mv(onHost.one)));
      auto outcome = relay.run().eagerlyEvaluate(nullptr);
      auto content = lab.bytes(65536);
      if (moment == Moment::STALLED) {
        while (send(program.descriptor(), content.begin(), content.size(), MSG_DONTWAIT | MSG_NOSIGNAL) > 0) lab.pass();
        auto filling = channels.guest->write(content).eagerlyEvaluate(nullptr);
        lab.pass();
      }
      cutSocket(duplicate);
      CHECK(lab.await(kj::mv(outcome)) == RelayOutcome::RESET);
      CHECK(lab.await(channels.guest->whenBroken()) == BulkEnd::RESET);
      if (kind == SocketKind::TCP) checkNoEnd(lab, program);
      CHECK(send(program.descriptor(), "x", 1, MSG_DONTWAIT | MSG_NOSIGNAL) == -1);
    }
  }
}

TEST_CASE("what is handed over is told to be a stream socket or not") {
  for (auto kind : SOCKET_KINDS) CHECK(isStreamSocket(connectedSockets(kind).one));
  CHECK_FALSE(isStreamSocket(socketPair(SOCK_SEQPACKET).one));
  CHECK_FALSE(isStreamSocket(socketPair(SOCK_DGRAM).one));
  CHECK_FALSE(isStreamSocket(-1));
  int fd;
  KJ_SYSCALL(fd = open("/dev/null", O_RDWR | O_CLOEXEC));
  CHECK_FALSE(isStreamSocket(kj::AutoCloseFd(fd)));
  KJ_SYSCALL(fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  kj::AutoCloseFd listener(fd);
  KJ_SYSCALL(listen(listener, 1));
  CHECK_FALSE(isStreamSocket(listener));
}

}  // namespace
}  // namespace postern::test
