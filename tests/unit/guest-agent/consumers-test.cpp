// Programs of the guest that connect to [[consume]] sockets, and a host that answers.

#include "guest-agent/services/consumers.h"

#include <netinet/in.h>
#include <sys/un.h>

#include "tests/support/host-channels.h"
#include "tests/support/sanitized.h"
#include "tests/unit/guest-agent/service-stage.h"

namespace postern::guest::test {
namespace {

// A host that reaches, refuses, or does not answer; what it has reached it sends back.
class EchoHost final : public schema::Host::Server, private kj::TaskSet::ErrorHandler {
 public:
  enum class Way { REACH, REFUSE, NEVER };
  Way way = Way::REACH;
  Session* session = nullptr;
  kj::Vector<kj::String> asked;
  kj::Vector<kj::Own<kj::PromiseFulfiller<void>>> answerLater;  // of those that got no answer

  EchoHost() : tasks(*this) {}

 protected:
  kj::Promise<void> connect(ConnectContext context) override {
    context.allowCancellation();
    auto params = context.getParams();
    asked.add(kj::str(params.getTo(), ' ', params.getService()));
    if (way == Way::NEVER) {
      auto later = kj::newPromiseAndFulfiller<void>();
      answerLater.add(kj::mv(later.fulfiller));
      auto done = later.promise.then([this, context]() mutable { return answer(context); });
      return done;
    }
    return answer(context);
  }

 private:
  kj::TaskSet tasks;

  kj::Promise<void> answer(ConnectContext context) {
    auto params = context.getParams();
    if (way == Way::REFUSE) {
      context.getResults().initRefusal().setReason(schema::Refusal::Reason::DENIED);
      return kj::READY_NOW;
    }
    auto accepted = session->bulk().accept({params.getChannel(), params.getCredit()});
    tasks.add(postern::test::echo(kj::mv(accepted.get<kj::Own<BulkChannel>>())));
    return kj::READY_NOW;
  }

  void taskFailed(kj::Exception&&) override {}
};

struct ConsumerStage : ServiceStage {
  ConsumerStage() : ConsumerStage(kj::heap<EchoHost>()) {}
  explicit ConsumerStage(kj::Own<EchoHost> hostParam)
      : ServiceStage("", "", schema::Host::Client(kj::Own<EchoHost>(hostParam.get(), kj::NullDisposer::instance))),
        theHost(kj::mv(hostParam)),
        consumers(port) {
    theHost->session = host.get();
  }
  ~ConsumerStage() noexcept(false) {
    uplink = nullptr;
    turn();
    hostRpc = nullptr;
  }

  kj::Own<EchoHost> theHost;
  Consumers consumers;
  kj::Own<void> uplink;
  kj::String socketPath = folder.path("consume.sock");
  PlainTarget listening{socketPath};

  void useSession() { uplink = consumers.use(*guest, guestRpc->peer().castAs<schema::Host>()); }
  void listen(kj::StringPtr from, kj::StringPtr service, bool isNew = true) {
    listenAt(listening, from, service, isNew);
  }
  void listenAt(PlainTarget& at, kj::StringPtr from, kj::StringPtr service, bool isNew = true) {
    kj::Vector<ConsumerBriefing> all;
    kj::Maybe<kj::AutoCloseFd> socket;
    if (isNew) {
      int copy;
      KJ_SYSCALL(copy = fcntl(at.socket, F_DUPFD_CLOEXEC, 0));
      KJ_SYSCALL(fcntl(copy, F_SETFL, O_NONBLOCK));
      socket = kj::AutoCloseFd(copy);
    }
    all.add(ConsumerBriefing{kj::str(at.address), kj::str(from), kj::str(service), kj::mv(socket)});
    consumers.replace(kj::mv(all));
  }

  static kj::AutoCloseFd connectTo(PlainTarget& tcp) {
    sockaddr_in address{};
    socklen_t size = sizeof(address);
    KJ_SYSCALL(getsockname(tcp.socket, reinterpret_cast<sockaddr*>(&address), &size));
    int fd;
    KJ_SYSCALL(fd = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    kj::AutoCloseFd own(fd);
    KJ_SYSCALL(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
    return own;
  }
  kj::AutoCloseFd connect() {
    int fd;
    KJ_SYSCALL(fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    kj::AutoCloseFd own(fd);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, socketPath.begin(), socketPath.size());
    KJ_SYSCALL(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
    return own;
  }
  // What comes while the loop turns: text; "end" or "reset" when that comes first; "nothing" within two seconds.
  kj::String hear(int fd) {
    char bytes[4096];
    for (int i = 0; i < 200; ++i) {
      ssize_t got = recv(fd, bytes, sizeof(bytes), MSG_DONTWAIT);
      if (got > 0) return kj::heapString(bytes, size_t(got));
      if (got == 0) return kj::str("end");
      if (errno != EAGAIN) return kj::str("reset");
      turn(10 * kj::MILLISECONDS);
    }
    return kj::str("nothing");
  }
  bool echoes(int fd) { return ::send(fd, "ping", 4, MSG_NOSIGNAL) == 4 && hear(fd) == "ping"; }
  bool isCut(int fd) {
    auto heard = hear(fd);
    return heard == "end" || heard == "reset";
  }
  bool settlesAt(size_t count) {
    for (int i = 0; i < 1000 && consumers.channels() != count; ++i) turn(10 * kj::MILLISECONDS);
    return consumers.channels() == count;
  }
};

TEST_CASE("a program's connection becomes a channel to the service, both ways, half-close included") {
  ConsumerStage stage;
  stage.useSession();
  stage.listen("db1", "postgres");
  auto program = stage.connect();
  REQUIRE(::send(program, "early", 5, 0) == 5);  // before anybody has answered
  CHECK((stage.hear(program) == "early"));
  REQUIRE(stage.theHost->asked.size() == 1);
  CHECK((stage.theHost->asked[0] == "db1 postgres"));
  CHECK(stage.echoes(program));
  shutdown(program, SHUT_WR);
  CHECK((stage.hear(program) == "end"));
  CHECK(stage.settlesAt(0));
}

TEST_CASE("what the host refuses is reset, and the next connection is asked for again") {
  ConsumerStage stage;
  stage.useSession();
  stage.listen("db1", "postgres");
  stage.theHost->way = EchoHost::Way::REFUSE;
  for (int i = 0; i < 3; ++i) {
    auto program = stage.connect();
    CHECK(stage.isCut(program));
  }
  CHECK(stage.theHost->asked.size() == 3);
  stage.theHost->way = EchoHost::Way::REACH;
  auto program = stage.connect();
  CHECK(stage.echoes(program));
}

TEST_CASE("a refused TCP connection sees a reset, not an end") {
  ConsumerStage stage;
  stage.useSession();
  PlainTarget tcp;
  stage.listenAt(tcp, "db1", "postgres");
  stage.theHost->way = EchoHost::Way::REFUSE;
  auto program = stage.connectTo(tcp);
  CHECK((stage.hear(program) == "reset"));
}

TEST_CASE("without a session a connection is cut at once, and with one it is not") {
  ConsumerStage stage;
  stage.listen("db1", "postgres");
  auto program = stage.connect();
  CHECK(stage.isCut(program));
  CHECK(stage.theHost->asked.size() == 0);
  stage.useSession();
  auto second = stage.connect();
  CHECK(stage.echoes(second));
  stage.wait(stage.guest->close(CloseCode::GOODBYE));
  CHECK(stage.isCut(second));
  auto third = stage.connect();
  CHECK(stage.isCut(third));
}

TEST_CASE("the end of a session ends its channels, those too that wait for an answer") {
  ConsumerStage stage;
  stage.useSession();
  stage.listen("db1", "postgres");
  auto open = stage.connect();
  CHECK(stage.echoes(open));
  stage.theHost->way = EchoHost::Way::NEVER;
  auto waiting = stage.connect();
  stage.turn(200 * kj::MILLISECONDS);
  CHECK(stage.consumers.channels() == 2);
  stage.uplink = nullptr;
  CHECK(stage.isCut(open));
  CHECK(stage.isCut(waiting));
  CHECK(stage.consumers.channels() == 0);
}

TEST_CASE("a program that goes while the host thinks leaves nothing, however it went and whatever comes") {
  ConsumerStage stage;
  stage.useSession();
  stage.listen("db1", "postgres");
  for (auto answer : {EchoHost::Way::REACH, EchoHost::Way::REFUSE}) {
    stage.theHost->way = EchoHost::Way::NEVER;
    {
      auto program = stage.connect();
      stage.turn(100 * kj::MILLISECONDS);
      CHECK(stage.consumers.channels() == 1);
    }
    stage.theHost->way = answer;
    stage.theHost->answerLater.back()->fulfill();
    CHECK(stage.settlesAt(0));
  }
}

TEST_CASE("a program that resets is not waited for") {
  ConsumerStage stage;
  stage.useSession();
  stage.theHost->way = EchoHost::Way::NEVER;
  PlainTarget tcp;
  stage.listenAt(tcp, "db1", "postgres");
  {
    auto program = stage.connectTo(tcp);
    stage.turn(100 * kj::MILLISECONDS);
    CHECK(stage.consumers.channels() == 1);
    linger atOnce{1, 0};
    KJ_SYSCALL(setsockopt(program, SOL_SOCKET, SO_LINGER, &atOnce, sizeof(atOnce)));
  }
  CHECK(stage.settlesAt(0));
}

// T101
TEST_CASE("a reload ends the channels of a consumer that is gone or another one, and of no other") {
  ConsumerStage stage;
  stage.useSession();
  stage.listen("db1", "postgres");
  auto program = stage.connect();
  CHECK(stage.echoes(program));
  stage.listen("db1", "postgres", false);
  CHECK(stage.echoes(program));
  stage.listen("db2", "postgres", false);
  CHECK(stage.isCut(program));
  auto second = stage.connect();
  CHECK(stage.echoes(second));
  CHECK((stage.theHost->asked.back() == "db2 postgres"));
  stage.listen("db2", "mysql", false);
  CHECK(stage.isCut(second));
  auto third = stage.connect();
  CHECK(stage.echoes(third));
  stage.consumers.replace({});
  CHECK(stage.isCut(third));
  CHECK(stage.consumers.channels() == 0);
}

// T103
TEST_CASE("a consumer has at most 1,024 channels; what is above waits in its queue and goes on when one ends") {
  DescriptorLimit limit;
  if (!limit.set(8192)) return;
  ConsumerStage stage;
  stage.useSession();
  stage.listen("db1", "postgres");
  kj::Vector<kj::AutoCloseFd> programs;
  for (size_t i = 0; i < MAX_CONSUMER_CHANNELS + 20; ++i) {
    programs.add(stage.connect());
    if (i % 16 == 0) stage.turn(1 * kj::MILLISECONDS);
  }
  CHECK(stage.settlesAt(MAX_CONSUMER_CHANNELS));
  stage.turn(100 * kj::MILLISECONDS);
  CHECK(stage.theHost->asked.size() == MAX_CONSUMER_CHANNELS);
  stage.uplink = nullptr;
  stage.useSession();
  auto last = stage.connect();
  CHECK(stage.echoes(last));
}

// T103
TEST_CASE("a host that is slow to answer is not asked for more than it takes; connections wait, and none is refused") {
  ConsumerStage stage;
  stage.useSession();
  stage.theHost->way = EchoHost::Way::NEVER;
  stage.listen("db1", "postgres");
  kj::Vector<kj::AutoCloseFd> programs;
  for (size_t i = 0; i < MAX_CONSUMER_QUESTIONS + 20; ++i) programs.add(stage.connect());
  auto& host = *stage.theHost;
  for (int i = 0; i < 200 && host.asked.size() < MAX_CONSUMER_QUESTIONS; ++i) stage.turn(10 * kj::MILLISECONDS);
  stage.turn(100 * kj::MILLISECONDS);
  CHECK(host.asked.size() == MAX_CONSUMER_QUESTIONS);
  host.way = EchoHost::Way::REACH;
  for (auto& answer : host.answerLater) answer->fulfill();
  for (auto& program : programs) CHECK(stage.echoes(program));
}

// T103
// UBSan itself opens descriptors.
TEST_CASE("when the process has no descriptor left connections wait, and go on when it has" *
          doctest::skip(postern::test::SANITIZED)) {
  DescriptorLimit limit;
  ConsumerStage stage;
  stage.useSession();
  stage.listen("db1", "postgres");
  auto first = stage.connect();
  auto second = stage.connect();
  kj::Vector<kj::AutoCloseFd> hoard;
  limit.set(200);
  for (;;) {
    int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (fd < 0) break;
    hoard.add(kj::AutoCloseFd(fd));
  }
  stage.turn(300 * kj::MILLISECONDS);
  CHECK(stage.consumers.channels() == 0);
  hoard.clear();
  CHECK(stage.echoes(first));
  CHECK(stage.echoes(second));
}

}  // namespace
}  // namespace postern::guest::test
