// An agent that was taken over, at the broker's socket.

#include <signal.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <random>

#include "guest-agent/broker/broker-wire.h"
#include "tests/support/comes-to.h"
#include "tests/unit/guest-agent/broker-fixture.h"
#include "transport/children/process-group.h"

namespace postern::guest::test {
namespace {

using postern::test::comesTo;
using Bytes = kj::Array<kj::byte>;

struct HostileLab : BrokerLab {
  using BrokerLab::BrokerLab;

  // False when the broker's end is closed.
  bool sendRaw(kj::ArrayPtr<const kj::byte> bytes) {
    return ::send(agentEnd, bytes.begin(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT) >= 0;
  }
  bool send(uint64_t number, decltype(Request::what) what) { return sendRaw(requestBytes({number, kj::mv(what)})); }
  // What ended the service; empty: it goes on.
  kj::String brokenRule() {
    auto ended = wait(service.then([](auto end) { return kj::mv(end); })
                          .exclusiveJoin(after(3 * kj::SECONDS).then([]() -> kj::OneOf<AgentGone, AgentBrokeRule> {
                            return AgentBrokeRule{kj::str("")};
                          })));
    return ended.is<AgentGone>() ? kj::str("gone") : kj::mv(ended.get<AgentBrokeRule>().text);
  }
  // The next answer that lies there; null when none comes in 2 s.
  kj::Maybe<Answer> answer() {
    Bytes buffer = kj::heapArray<kj::byte>(MAX_ANSWER_BYTES);
    for (int i = 0; i < 200; ++i) {
      ssize_t got = recv(agentEnd, buffer.begin(), buffer.size(), MSG_DONTWAIT);
      if (got > 0) {
        auto parsed = parseAnswer(buffer.slice(0, size_t(got)));
        REQUIRE(parsed.is<Answer>());
        return kj::mv(parsed.get<Answer>());
      }
      turn(10 * kj::MILLISECONDS);
    }
    return nullptr;
  }
};

Bytes altered(decltype(Request::what) what, size_t at, kj::byte value) {
  auto bytes = requestBytes({1, kj::mv(what)});
  bytes[at] = value;
  return bytes;
}

transfer::FileOrder orderFor(kj::StringPtr path) {
  transfer::FileOrder order;
  order.call = transfer::FileCall::PUT;
  order.path = kj::str(path);
  order.recursive = true;
  order.special = true;
  order.sparse = transfer::Sparse::NEVER;
  return order;
}
OpenFilesRequest openFiles(kj::StringPtr path) {
  return {orderFor(path), kj::str("vm:a")};
}

OpenServiceRequest service(kj::StringPtr name) {
  return {kj::str(name), kj::str("vm:a")};
}

kj::Array<decltype(Request::what)> oneOfEach() {
  using What = decltype(Request::what);
  return kj::arr(What(ConnectRequest{}), What(ProbeRequest{Probe::OS, 1 * kj::SECONDS}),
                 What(InhibitorsRequest{PowerAction::SHUTDOWN}), What(HooksRequest{PowerAction::RESTART}),
                 What(RunHookRequest{PowerAction::SUSPEND, kj::str("50-db"), kj::str("user:alice")}),
                 What(TellUsersRequest{kj::str("text\nmore")}),
                 What(PowerRequest{PowerAction::SHUTDOWN, kj::str("vm:web1")}), What(EnrolledRequest{}),
                 What(OpenFilesRequest{orderFor("/srv/www/\xff"), kj::str("user:alice")}),
                 What(OpenServiceRequest{kj::str("http"), kj::str("vm:web1")}), What(CancelRequest{7}));
}

TEST_CASE("each request survives its wire form, and no other length of it is taken") {
  for (auto& what : oneOfEach()) {
    auto bytes = requestBytes({42, kj::mv(what)});
    auto parsed = parseRequest(bytes);
    REQUIRE(parsed.is<Request>());
    CHECK(parsed.get<Request>().number == 42);
    CHECK((requestBytes(parsed.get<Request>()) == bytes));
    for (size_t length = 0; length < bytes.size(); ++length) {
      CHECK(parseRequest(bytes.slice(0, length)).is<WireError>());
    }
    auto longer = kj::heapArray<kj::byte>(bytes.size() + 1);
    memset(longer.begin(), 0, longer.size());
    memcpy(longer.begin(), bytes.begin(), bytes.size());
    CHECK(parseRequest(longer).is<WireError>());
  }
}

TEST_CASE("every byte of every request, with any of its bits flipped, is refused or means exactly what it says") {
  for (auto& what : oneOfEach()) {
    auto bytes = requestBytes({42, kj::mv(what)});
    for (size_t i = 0; i < bytes.size(); ++i) {
      for (unsigned bit = 0; bit < 8; ++bit) {
        bytes[i] ^= kj::byte(1u << bit);
        auto parsed = parseRequest(bytes);
        // What is taken has one wire form, the one that came: nothing in it was overlooked.
        KJ_IF_MAYBE (request, parsed.tryGet<Request>()) {
          CAPTURE(i);
          CHECK((requestBytes(*request) == bytes));
        }
        bytes[i] ^= kj::byte(1u << bit);
      }
    }
  }
}

// T59
TEST_CASE("malformed requests end the service, each with the rule that was broken") {
  struct {
    Bytes bytes;
    kj::StringPtr rule;
  } cases[] = {
      {kj::heapArray<kj::byte>({1}), "a request's size does not belong to its kind"},
      {altered(ConnectRequest{}, 0, 99), "a request's kind is unknown"},
      {altered(ConnectRequest{}, 0, 2), "a request's size does not belong to its kind"},
      {altered(ConnectRequest{}, 4, 1), "a request's field holds what it cannot"},
      {altered(ProbeRequest{Probe::OS, 1 * kj::SECONDS}, 16, 3), "a request's field holds what it cannot"},
      {altered(HooksRequest{PowerAction::SHUTDOWN}, 16, 3), "a request's field holds what it cannot"},
      {altered(HooksRequest{PowerAction::SHUTDOWN}, 20, 1), "a request's field holds what it cannot"},
      {altered(RunHookRequest{PowerAction::SHUTDOWN, kj::str("a"), kj::str("vm:a")}, 24, '/'),
       "a request's text is unterminated, too long or unprintable"},
      {altered(RunHookRequest{PowerAction::SHUTDOWN, kj::str("a"), kj::str("vm:a")}, 24, '.'),
       "a request's text is unterminated, too long or unprintable"},
      {altered(RunHookRequest{PowerAction::SHUTDOWN, kj::str("a"), kj::str("vm:a")}, 30, 'x'),
       "a request's text is unterminated, too long or unprintable"},
      {altered(TellUsersRequest{kj::str("hello")}, 17, 0x1b),
       "a request's text is unterminated, too long or unprintable"},
      {altered(PowerRequest{PowerAction::SHUTDOWN, kj::str("vm:a")}, 24, 'w'),
       "a request's text is unterminated, too long or unprintable"},
      {altered(openFiles("/srv"), 16, 6), "a request's field holds what it cannot"},
      {altered(openFiles("/srv"), 20, 3), "a request's field holds what it cannot"},
      {altered(openFiles("/srv"), 25, 1), "a request's field holds what it cannot"},
      {altered(openFiles("/srv"), 28, 1), "a request's field holds what it cannot"},
      {altered(openFiles("/srv"), 32, 's'), "a request's text is unterminated, too long or unprintable"},
      {altered(openFiles("/srv"), 33, '/'), "a request's text is unterminated, too long or unprintable"},
      {altered(openFiles("/srv"), 36, '/'), "a request's text is unterminated, too long or unprintable"},
      {altered(openFiles("/srv/x"), 37, '.'), "a request's text is unterminated, too long or unprintable"},
      {altered(service("http"), 16, '.'), "a request's text is unterminated, too long or unprintable"},
      {altered(service("http"), 16, 0), "a request's text is unterminated, too long or unprintable"},
      {altered(service("http"), 24, 'x'), "a request's text is unterminated, too long or unprintable"},
      {altered(service("http"), 88, 'w'), "a request's text is unterminated, too long or unprintable"},
      {kj::heapArray<kj::byte>(MAX_REQUEST_BYTES + 1), "a message is too long, or carries descriptors"},
  };
  for (auto& one : cases) {
    HostileLab lab;
    REQUIRE(lab.sendRaw(one.bytes));
    CHECK((lab.brokenRule() == one.rule));
    CHECK(comesTo([&]() { return lab.sendRaw(one.bytes); }, false));  // the broker's end is closed
    CHECK(lab.power.started.size() == 0);
  }
}

TEST_CASE("a text without an end is not read beyond its field") {
  auto bytes = requestBytes({1, TellUsersRequest{kj::str("x")}});
  memset(bytes.begin() + 16, 'x', bytes.size() - 16);
  HostileLab lab;
  lab.sendRaw(bytes);
  CHECK((lab.brokenRule() == "a request's text is unterminated, too long or unprintable"));
}

TEST_CASE("a number that was used before, or is below one that was, ends the service") {
  for (uint64_t second : {5, 4, 0}) {
    HostileLab lab;
    lab.send(5, HooksRequest{PowerAction::SHUTDOWN});
    lab.send(second, HooksRequest{PowerAction::SHUTDOWN});
    CHECK((lab.brokenRule() == "a request's number was used before"));
  }
}

TEST_CASE("a flood of requests ends the service at the seventeenth, and its children with it") {
  HostileLab lab(shell("exec sleep 60"));
  for (uint64_t i = 1; i <= MAX_BROKER_REQUESTS; ++i) lab.send(i, ProbeRequest{Probe::OS, 30 * kj::SECONDS});
  lab.turn(200 * kj::MILLISECONDS);
  CHECK(lab.service.poll(lab.scope) == false);
  lab.send(100, ProbeRequest{Probe::OS, 30 * kj::SECONDS});
  CHECK((lab.brokenRule() == "more than 16 requests at one time"));
}

// A target that does not answer, as a full listen queue does: at a path of the test's own.
struct SlowTarget {
  postern::test::TemporaryFolder folder;
  kj::String path = folder.path("slow.sock");
  kj::AutoCloseFd listening, first;

  SlowTarget() {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path.begin(), path.size());
    auto* generic = reinterpret_cast<sockaddr*>(&address);
    int fd;
    KJ_SYSCALL(fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    listening = kj::AutoCloseFd(fd);
    KJ_SYSCALL(bind(fd, generic, sizeof(address)));
    KJ_SYSCALL(listen(fd, 0));
    KJ_SYSCALL(fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    first = kj::AutoCloseFd(fd);
    KJ_SYSCALL(connect(fd, generic, sizeof(address)));
  }
  PlanService plan() {
    return [this](kj::StringPtr service, kj::StringPtr) -> kj::OneOf<ServicePlan, ServiceRefusal> {
      ServicePlan plan;
      plan.target.name = kj::str(service);
      plan.target.leadsTo = LocalAddress(UnixAddress{kj::str(path)});
      plan.user = OpenerUser{kj::str("me"), nullptr, nullptr};
      return kj::mv(plan);
    };
  }
};

// T103
TEST_CASE("hundreds of services that do not answer hold up no other request, and a flood of them ends the service") {
  SlowTarget target;
  HostileLab lab;
  lab.planService = target.plan();
  uint64_t number = 0;
  // False: the service has ended.
  auto ask = [&]() {
    ++number;
    while (!lab.service.poll(lab.scope)) {
      if (lab.send(number, service("http"))) return true;
      lab.turn(1 * kj::MILLISECONDS);
    }
    return false;
  };
  for (size_t i = 0; i < 10 * MAX_BROKER_REQUESTS; ++i) REQUIRE(ask());
  lab.turn(50 * kj::MILLISECONDS);
  lab.send(++number, HooksRequest{PowerAction::SHUTDOWN});
  auto hooks = KJ_REQUIRE_NONNULL(lab.answer());
  CHECK(hooks.number == number);
  CHECK(hooks.outcome == Answer::Outcome::DONE);
  lab.send(++number, CancelRequest{5});
  auto cancelled = KJ_REQUIRE_NONNULL(lab.answer());
  CHECK(cancelled.number == 5);
  CHECK(cancelled.outcome == Answer::Outcome::CANCELLED);
  // Some may have come to their deadline meanwhile.
  while (number < 10 * MAX_SERVICE_REQUESTS && ask()) continue;
  CHECK(number >= MAX_SERVICE_REQUESTS);
  CHECK((lab.brokenRule() == "more than 1024 requests at one time"));
}

// T98
TEST_CASE("the broker asks the policy itself for every service, and a refusal arrives with kind and rule") {
  HostileLab lab;
  lab.send(1, OpenServiceRequest{kj::str("postgres"), kj::str("vm:web1")});
  auto refused = KJ_REQUIRE_NONNULL(lab.answer());
  CHECK(refused.outcome == Answer::Outcome::REFUSED);
  auto why = serviceRefusalOf(refused.payload);
  CHECK(why.kind == ServiceRefusal::Kind::DENIED);
  CHECK((why.text == "not allowed: postgres vm:web1"));
  CHECK((why.rule == "no-services"));
  for (auto kind : {ServiceRefusal::Kind::NOT_REACHED, ServiceRefusal::Kind::DENIED, ServiceRefusal::Kind::NOT_EXPORTED,
                    ServiceRefusal::Kind::BUSY}) {
    auto back = serviceRefusalOf(serviceRefusalPayload({kind, kj::str("why"), kj::str("rule")}));
    CHECK(back.kind == kind);
    CHECK((back.text == "why"));
  }
  auto noise = kj::heapArray<kj::byte>({'x', 0xff, 0, 0, 7});
  CHECK(serviceRefusalOf(noise).kind == ServiceRefusal::Kind::NOT_REACHED);
}

TEST_CASE("answers that the agent does not read count as requests in progress") {
  HostileLab lab(shell("head -c 65536 /dev/zero"));
  kj::String rule;
  for (uint64_t i = 1; i < 200 && rule.size() == 0; ++i) {
    if (!lab.send(i, ProbeRequest{Probe::OS, 20 * kj::SECONDS})) break;
    lab.turn(30 * kj::MILLISECONDS);
    if (lab.service.poll(lab.scope)) break;
  }
  CHECK((lab.brokenRule() == "more than 16 requests at one time"));
}

TEST_CASE("descriptors that are sent to the broker are closed, and end the service") {
  HostileLab lab;
  int pipeFds[2];
  KJ_SYSCALL(pipe2(pipeFds, O_CLOEXEC | O_NONBLOCK));
  kj::AutoCloseFd reading(pipeFds[0]);
  kj::AutoCloseFd writing(pipeFds[1]);
  auto bytes = requestBytes({1, HooksRequest{PowerAction::SHUTDOWN}});
  iovec piece{bytes.begin(), bytes.size()};
  union {
    cmsghdr header;
    char space[CMSG_SPACE(sizeof(int))];
  } control{};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = &control;
  message.msg_controllen = sizeof(control);
  control.header.cmsg_level = SOL_SOCKET;
  control.header.cmsg_type = SCM_RIGHTS;
  control.header.cmsg_len = CMSG_LEN(sizeof(int));
  int raw = writing.get();
  memcpy(CMSG_DATA(&control.header), &raw, sizeof(raw));
  auto sent = sendmsg(lab.agentEnd, &message, MSG_NOSIGNAL);
  if (sent < 0) {
    REQUIRE(errno == EPERM);  // a kernel with SO_PASSRIGHTS refuses for the broker
    return;
  }
  writing = nullptr;
  CHECK((lab.brokenRule() == "a message is too long, or carries descriptors"));
  char byte;
  CHECK(comesTo([&]() { return read(reading, &byte, 1); }, 0));  // the end: nobody has the other end open
}

TEST_CASE("random messages never do anything but end the service or be answered") {
  std::mt19937 random(20240501);
  auto templates = oneOfEach();
  unsigned survived = 0;
  for (int round = 0; round < 300; ++round) {
    HostileLab lab(shell("exit 0"));
    lab.policyRefuses = kj::str("no");
    Bytes bytes;
    if (round % 2 == 0) {
      bytes = kj::heapArray<kj::byte>(random() % 10000);
      for (auto& byte : bytes) byte = kj::byte(random());
    } else {
      bytes = requestBytes({random() % 5 + 1, kj::mv(oneOfEach()[random() % templates.size()])});
      for (unsigned flips = random() % 4; flips > 0; --flips) {
        // Most of a request is text; its beginning is where the decisions are.
        bytes[random() % kj::min(bytes.size(), size_t(random() % 2 == 0 ? 32 : 100000))] ^=
            kj::byte(1u << random() % 8);
      }
    }
    if (!lab.sendRaw(bytes)) continue;
    lab.turn(1 * kj::MILLISECONDS);
    survived += lab.service.poll(lab.scope) ? 0 : 1;
    CHECK(lab.power.started.size() == 0);
  }
  CHECK(survived > 20);  // the unspoilt ones among them
  CHECK(survived < 200);
}

TEST_CASE("a cancelled request is answered once, and cancelling what is not there means nothing") {
  HostileLab lab(shell("exec sleep 60"));
  lab.send(1, CancelRequest{77});
  lab.send(2, ProbeRequest{Probe::OS, 20 * kj::SECONDS});
  lab.turn(100 * kj::MILLISECONDS);
  lab.send(3, CancelRequest{2});
  lab.send(4, CancelRequest{2});
  auto cancelled = KJ_REQUIRE_NONNULL(lab.answer());
  CHECK(cancelled.number == 2);
  CHECK(cancelled.outcome == Answer::Outcome::CANCELLED);
  lab.send(5, HooksRequest{PowerAction::SHUTDOWN});
  CHECK(KJ_REQUIRE_NONNULL(lab.answer()).number == 5);
}

// T59
TEST_CASE("the broker asks the policy itself, for hooks and for power, and names the caller") {
  HostileLab lab;
  lab.addHook("10-mark", kj::str("touch ", lab.folder.path("ran")));
  lab.policyRefuses = kj::str("not allowed:");
  lab.send(1, PowerRequest{PowerAction::RESTART, kj::str("user:mallory/group:ops")});
  auto refused = KJ_REQUIRE_NONNULL(lab.answer());
  CHECK(refused.outcome == Answer::Outcome::REFUSED);
  CHECK((kj::heapString(refused.payload.asChars()) == "not allowed: power.restart user:mallory/group:ops"));
  lab.send(2, RunHookRequest{PowerAction::RESTART, kj::str("10-mark"), kj::str("user:mallory")});
  CHECK(KJ_REQUIRE_NONNULL(lab.answer()).outcome == Answer::Outcome::REFUSED);
  CHECK(lab.power.started.size() == 0);
  CHECK_FALSE(exists(lab.folder.path("ran")));
}

struct OpenerLab : HostileLab {
  OpenerLab() : HostileLab(shell("exit 3"), 5 * kj::SECONDS, POWER_HAPPENS_WITHIN, shell("exec sleep 60")) {
    planFiles = [this](const transfer::FileOrder& order, kj::StringPtr caller) -> kj::OneOf<OpenerPlan, FilesRefusal> {
      asked.add(kj::str(transfer::callName(order.call), ' ', order.path, ' ', caller));
      return OpenerPlan{FilePlace{transfer::PathScope(), kj::str("/srv"), kj::String()},
                        OpenerUser{kj::str("me"), nullptr, nullptr}};
    };
  }
  kj::Vector<kj::String> asked;

  // Asked for; whether it was opened.
  bool open(uint64_t number) {
    send(number, openFiles("/srv/x"));
    return KJ_REQUIRE_NONNULL(answer()).outcome == Answer::Outcome::OPENED;
  }
};

// T71
TEST_CASE("the broker asks the policy itself for every order about files, and a refusal arrives with kind and rule") {
  {
    HostileLab lab;
    lab.send(1, OpenFilesRequest{orderFor("/etc/shadow"), kj::str("user:mallory")});
    auto refused = KJ_REQUIRE_NONNULL(lab.answer());
    CHECK(refused.outcome == Answer::Outcome::REFUSED);
    auto why = filesRefusalOf(refused.payload);
    CHECK(why.kind == FilesRefusal::Kind::DENIED);
    CHECK((why.text == "not allowed: file.put /etc/shadow user:mallory"));
    CHECK((why.rule == "no-files"));
  }
  OpenerLab open;
  CHECK(open.open(1));
  CHECK((open.asked[0] == "file.put /srv/x vm:a"));
}

TEST_CASE("any payload is a refusal about files, at worst a failure with what is printable of it") {
  std::mt19937 random(7);
  for (int round = 0; round < 500; ++round) {
    auto noise = kj::heapArray<kj::byte>(random() % 100);
    for (auto& byte : noise) byte = random() % 4 == 0 ? 0 : kj::byte(random());
    auto refusal = filesRefusalOf(noise);
    CHECK(refusal.text.size() <= MAX_TEXT_BYTES);
  }
  CHECK((filesRefusalOf(textsPayload(kj::arr(kj::str("worse"), kj::str("x"), kj::str("y")))).kind ==
         FilesRefusal::Kind::FAILED));
}

// T75
TEST_CASE("sixteen openers run at one time, another is refused as busy, and a cancelled one makes room") {
  OpenerLab lab;
  for (uint64_t i = 1; i <= MAX_OPENERS; ++i) CHECK(lab.open(i));
  lab.send(50, openFiles("/srv/x"));
  CHECK((filesRefusalOf(KJ_REQUIRE_NONNULL(lab.answer()).payload).kind == FilesRefusal::Kind::BUSY));
  lab.send(51, CancelRequest{3});
  lab.send(52, CancelRequest{3});
  CHECK(lab.open(53));
  CHECK_FALSE(lab.service.poll(lab.scope));
}

TEST_CASE("users' terminals are not flooded: six messages a minute") {
  HostileLab lab;
  for (uint64_t i = 1; i <= 8; ++i) {
    lab.send(i, TellUsersRequest{kj::str("message ", i)});
    CHECK((KJ_REQUIRE_NONNULL(lab.answer()).outcome == Answer::Outcome::DONE) == (i <= 6));
  }
}

TEST_CASE("of more than two connects at one time the third is refused") {
  HostileLab lab;
  lab.connect = [] { return kj::Promise<Connected>(kj::NEVER_DONE); };
  for (uint64_t i = 1; i <= 3; ++i) lab.send(i, ConnectRequest{});
  auto refused = KJ_REQUIRE_NONNULL(lab.answer());
  CHECK(refused.number == 3);
  CHECK(refused.outcome == Answer::Outcome::REFUSED);
}

TEST_CASE("power is started once: repetitions report the same, another action meanwhile is refused") {
  HostileLab lab;
  auto hold = kj::newPromiseAndFulfiller<void>();
  lab.power.hold = kj::mv(hold.promise);
  lab.send(1, PowerRequest{PowerAction::SHUTDOWN, kj::str("user:alice")});
  lab.send(2, PowerRequest{PowerAction::SHUTDOWN, kj::str("user:alice")});
  lab.send(3, PowerRequest{PowerAction::RESTART, kj::str("user:alice")});
  auto other = KJ_REQUIRE_NONNULL(lab.answer());
  CHECK(other.number == 3);
  CHECK((kj::heapString(other.payload.asChars()) == "shutdown is under way"));
  hold.fulfiller->fulfill();
  CHECK(KJ_REQUIRE_NONNULL(lab.answer()).outcome == Answer::Outcome::DONE);
  CHECK(KJ_REQUIRE_NONNULL(lab.answer()).outcome == Answer::Outcome::DONE);
  lab.policyRefuses = kj::str("too late for that");
  lab.send(4, PowerRequest{PowerAction::SHUTDOWN, kj::str("user:alice")});
  CHECK(KJ_REQUIRE_NONNULL(lab.answer()).outcome == Answer::Outcome::DONE);
  CHECK(lab.power.started.size() == 1);
}

TEST_CASE("a power action goes on when the agent that asked for it is gone, and one that failed may be tried again") {
  HostileLab lab;
  auto hold = kj::newPromiseAndFulfiller<void>();
  lab.power.hold = kj::mv(hold.promise);
  lab.send(1, PowerRequest{PowerAction::SHUTDOWN, kj::str("user:alice")});
  lab.turn();
  lab.agentEnd = nullptr;
  CHECK((lab.brokenRule() == "gone"));
  auto sockets = newBrokerSockets();
  lab.agentEnd = kj::mv(sockets.agent);
  lab.service = lab.broker->serve(kj::mv(sockets.broker)).eagerlyEvaluate(nullptr);
  lab.send(1, PowerRequest{PowerAction::SHUTDOWN, kj::str("user:alice")});
  lab.turn();
  CHECK(lab.power.started.size() == 1);
  lab.power.failure = kj::str("broken");
  hold.fulfiller->fulfill();
  CHECK(KJ_REQUIRE_NONNULL(lab.answer()).outcome == Answer::Outcome::REFUSED);
  lab.power.failure = nullptr;
  lab.send(2, PowerRequest{PowerAction::RESTART, kj::str("user:alice")});
  CHECK(KJ_REQUIRE_NONNULL(lab.answer()).outcome == Answer::Outcome::DONE);
  CHECK(lab.power.started.size() == 2);
}

// A file whose contents the probe's script writes when it has begun; the script runs without arguments of the test's
// own.
struct KilledAgent {
  postern::test::TemporaryFolder folder;
  kj::String pidFile = folder.path("pid");
  HostileLab lab{shell(kj::str("echo $$ > ", pidFile, "; exec sleep 60"))};
};

TEST_CASE("an agent that is killed ends the service, and what was started for it is killed") {
  KilledAgent f;
  auto& lab = f.lab;
  pid_t agent = fork();
  if (agent == 0) {
    auto bytes = requestBytes({1, ProbeRequest{Probe::OS, 30 * kj::SECONDS}});
    ::send(lab.agentEnd, bytes.begin(), bytes.size(), 0);
    for (;;) pause();
  }
  lab.agentEnd = nullptr;
  for (int i = 0; i < 100 && !exists(f.pidFile); ++i) lab.turn(20 * kj::MILLISECONDS);
  lab.turn(50 * kj::MILLISECONDS);
  pid_t probe = pidIn(f.pidFile);
  CHECK(kill(probe, 0) == 0);
  CHECK_FALSE(lab.service.poll(lab.scope));
  kill(agent, SIGKILL);
  waitpid(agent, nullptr, 0);
  CHECK((lab.brokenRule() == "gone"));
  lab.turn(1500 * kj::MILLISECONDS);
  CHECK(kill(probe, 0) < 0);
}

// T75
TEST_CASE("an agent that is gone takes its openers along") {
  postern::test::TemporaryFolder folder;
  auto pidFile = folder.path("pid");
  HostileLab lab(shell("exit 3"), 5 * kj::SECONDS, POWER_HAPPENS_WITHIN,
                 shell(kj::str("echo $$ > ", pidFile, "; exec sleep 60")));
  lab.planFiles = [](const transfer::FileOrder&, kj::StringPtr) -> kj::OneOf<OpenerPlan, FilesRefusal> {
    return OpenerPlan{FilePlace{transfer::PathScope(), kj::str("/srv"), kj::String()},
                      OpenerUser{kj::str("me"), nullptr, nullptr}};
  };
  lab.send(1, openFiles("/srv/x"));
  for (int i = 0; i < 100 && !exists(pidFile); ++i) lab.turn(20 * kj::MILLISECONDS);
  lab.turn(50 * kj::MILLISECONDS);
  pid_t opener = pidIn(pidFile);
  CHECK(kill(opener, 0) == 0);
  lab.agentEnd = nullptr;
  CHECK((lab.brokenRule() == "gone"));
  for (int i = 0; i < 80 && kill(opener, 0) == 0; ++i) lab.turn(100 * kj::MILLISECONDS);
  CHECK(kill(opener, 0) < 0);
}

TEST_CASE("a broker that is killed takes the programs along that it had started") {
  postern::test::TemporaryFolder folder;
  auto pidFile = folder.path("pid");
  pid_t brokerProcess = fork();
  if (brokerProcess == 0) {
    HostileLab lab(shell(kj::str("echo $$ > ", pidFile, "; exec sleep 60")));
    // It will not get to remove its folder, which it does not need.
    rmdir(lab.hooks.cStr());
    rmdir(kj::heapString(lab.hooks.slice(0, lab.hooks.size() - kj::StringPtr("/hooks.d").size())).cStr());
    lab.send(1, ProbeRequest{Probe::OS, 30 * kj::SECONDS});
    lab.turn(30 * kj::SECONDS);
    _exit(0);
  }
  for (int i = 0; i < 200 && !exists(pidFile); ++i) usleep(20000);
  usleep(50000);
  pid_t probe = pidIn(pidFile);
  CHECK(kill(probe, 0) == 0);
  kill(brokerProcess, SIGKILL);
  waitpid(brokerProcess, nullptr, 0);
  for (int i = 0; i < 100 && groupRuns(probe); ++i) usleep(20000);
  CHECK_FALSE(groupRuns(probe));
}

}  // namespace
}  // namespace postern::guest::test
