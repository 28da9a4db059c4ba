#pragma once
// HubLab: a Hub with its VM's keys in a real file, hand-turned clocks, and guests that connect to it over socket pairs
// with the real protocol. Nothing is faked between the two but time.

#include <doctest/doctest.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/local-rpc/local-rpc.h"
#include "host/session/hub.h"
#include "protocol/limits.h"
#include "tests/support/temporary-folder.h"
#include "tests/support/test-random.h"
#include "transport/stream-link.h"

namespace postern::host::test {

namespace wire = postern::schema;

// A VM's state file, opened again and again as after a crash.
class KeyFile {
 public:
  postern::test::TemporaryFolder folder;
  postern::test::TestRandom random;
  VmId vm;
  struct Wall final : public kj::Clock {
    int64_t seconds = 1'000'000;
    kj::Date now() const override { return kj::UNIX_EPOCH + seconds * kj::SECONDS; }
  } wall;
  struct Monotonic final : public kj::MonotonicClock {
    kj::TimePoint time = kj::origin<kj::TimePoint>() + 1000 * kj::SECONDS;
    kj::TimePoint now() const override { return time; }
  } monotonic;

  KeyFile() { random.fill(kj::arrayPtr(vm.bytes.data(), vm.bytes.size())); }

  kj::String path() const { return folder.path("web1.state"); }
  kj::OneOf<kj::Own<VmKeys>, kj::StringPtr> tryOpen(const VmId& asVm) {
    int fd;
    KJ_SYSCALL(fd = ::open(path().cStr(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    auto file = StateFile::open(kj::AutoCloseFd(fd), geteuid());
    if (file.is<StateFileError>()) return postern::describe(file.get<StateFileError>());
    return VmKeys::open(kj::mv(file.get<StateFile>()), asVm, {wall, monotonic}, random);
  }
  kj::Own<VmKeys> open() {
    auto opened = tryOpen(vm);
    KJ_REQUIRE(opened.is<kj::Own<VmKeys>>(), opened.get<kj::StringPtr>());
    return kj::mv(opened.get<kj::Own<VmKeys>>());
  }
  void pass(int64_t seconds) {
    wall.seconds += seconds;
    monotonic.time += seconds * kj::SECONDS;
  }
};

// While it lives no file of this process grows or changes: like a full disk, for whoever writes.
class DiskFull {
 public:
  DiskFull() {
    signal(SIGXFSZ, SIG_IGN);
    KJ_SYSCALL(getrlimit(RLIMIT_FSIZE, &before));
    struct rlimit none = before;
    none.rlim_cur = 0;
    KJ_SYSCALL(setrlimit(RLIMIT_FSIZE, &none));
  }
  ~DiskFull() { setrlimit(RLIMIT_FSIZE, &before); }
  KJ_DISALLOW_COPY(DiskFull);

 private:
  struct rlimit before;
};

struct ObservedEvent {
  Hub::EventKind kind;
  kj::String text;
  uint16_t code;
};

class HubLog final : public Hub::Observer {
 public:
  kj::Vector<ObservedEvent> events;
  kj::Vector<Report> reports;
  unsigned stateChanges = 0;

  void stateChanged() override { ++stateChanges; }
  void event(Hub::EventKind kind, kj::StringPtr text, uint16_t code) override {
    events.add(ObservedEvent{kind, kj::str(text), code});
  }
  void heartbeat(const Report& report) override { reports.add(report); }
  kj::Promise<bool> connect(GuestEnd&, kj::Maybe<ServiceQuestion>) override { return false; }

  unsigned count(Hub::EventKind kind) const {
    unsigned n = 0;
    for (auto& event : events) n += event.kind == kind;
    return n;
  }
  const ObservedEvent& last(Hub::EventKind kind) const {
    for (size_t i = events.size(); i > 0; --i) {
      if (events[i - 1].kind == kind) return events[i - 1];
    }
    KJ_FAIL_REQUIRE("no such event");
  }
};

// What one agent keeps, and what it answers.
struct LabAgent {
  VmId vm;
  GuestKeyPair own;
  kj::Maybe<HostPublicKey> host;
  kj::Maybe<LinkSecret> linkSecret;
  kj::Maybe<EnrolmentToken> token;
  Confirmation confirmation;  // the counter goes up with each session
  kj::Maybe<wire::GuestCalls::Client> calls;
  // In place of what answers with those calls.
  kj::Maybe<kj::Function<wire::Guest::Client()>> bootstrap;

  GuestCredentials enrolment() {
    return GuestEnrolment{vm, {own.pair.clone()}, host, {KJ_REQUIRE_NONNULL(token).bytes.clone()}};
  }
  GuestCredentials identity() {
    return GuestIdentity{
        vm, {own.pair.clone()}, KJ_REQUIRE_NONNULL(host), {KJ_REQUIRE_NONNULL(linkSecret).bytes.clone()}};
  }
};

// One connection of an agent.
class LabGuest {
 public:
  kj::Promise<Hub::Outcome> outcome = nullptr;  // what the hub says of it
  kj::Maybe<kj::Own<Session>> session;
  kj::Maybe<kj::Own<RpcConnection>> rpc;
  kj::Maybe<EstablishFailure> failure;
  kj::Maybe<SessionEnd> end;
  kj::Promise<void> task = nullptr;
  kj::Promise<void> ending = nullptr;

  bool isIn() const { return session != nullptr && end == nullptr; }
  bool isOut() const { return failure != nullptr || end != nullptr; }
  // The code of the CLOSE that it heard, if it heard one.
  kj::Maybe<CloseCode> closeCode() const {
    KJ_IF_MAYBE (f, failure) {
      if (f->is<CloseCode>()) return f->get<CloseCode>();
      return nullptr;
    }
    KJ_IF_MAYBE (e, end) return e->code;
    return nullptr;
  }
  wire::Host::Client host() { return KJ_REQUIRE_NONNULL(rpc)->peer().castAs<wire::Host>(); }
};

class AgentServer final : public wire::Guest::Server {
 public:
  explicit AgentServer(kj::Maybe<wire::GuestCalls::Client> calls) : calls(kj::mv(calls)) {}
  kj::Promise<void> callsFor(CallsForContext context) override {
    KJ_IF_MAYBE (c, calls) context.getResults().setCalls(*c);
    return kj::READY_NOW;
  }

 private:
  kj::Maybe<wire::GuestCalls::Client> calls;
};

class HubLab {
 public:
  KeyFile file;
  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::TimerImpl timer{kj::origin<kj::TimePoint>() + 1000 * kj::SECONDS};
  BlockPool pool{timer};
  ReadScratch scratch;
  SessionEnvironment environment{timer, pool, file.random};
  HubLog log;
  kj::Own<VmKeys> keys = file.open();
  kj::Own<Hub> hub = makeHub();

  kj::Own<Hub> makeHub() { return kj::heap<Hub>(*keys, log, Hub::Environment{io.unixEventPort, scratch, environment}); }

  // As after a move from another host.
  void inherit() {
    hub = nullptr;
    keys = nullptr;
    int fd;
    KJ_SYSCALL(fd = ::open(file.path().cStr(), O_RDWR | O_CLOEXEC));
    auto opened = StateFile::open(kj::AutoCloseFd(fd), geteuid());
    auto& stored = opened.get<StateFile>();
    auto state = decodeHostState(KJ_REQUIRE_NONNULL(stored.state()));
    KJ_REQUIRE_NONNULL(state.get<kj::Own<HostState>>()->current).inherited = true;
    KJ_REQUIRE(stored.write(encodeState(*state.get<kj::Own<HostState>>())) == nullptr);
    keys = file.open();
    hub = makeHub();
  }

  void settle() {
    // The sockets are the kernel's: what one end has written the other may read a moment later.
    for (int i = 0; i < 8; ++i) io.waitScope.poll();
  }
  void advance(kj::Duration by) {
    timer.advanceTo(timer.now() + by);
    settle();
  }

  // An agent with a key and, by a new offer, a token.
  LabAgent newAgent() {
    auto issued = keys->issue(DEFAULT_TOKEN_SECONDS);
    return agentFor(issued.get<VmKeys::Issued>());
  }
  LabAgent agentFor(VmKeys::Issued& issued) {
    LabAgent agent;
    agent.vm = file.vm;
    agent.own = GuestKeyPair::generate(file.random);
    agent.host = issued.host;
    agent.token = EnrolmentToken{issued.token.bytes.clone()};
    agent.confirmation.agentInstance = {7, file.random.next()};
    agent.confirmation.bootId = {1, 1};
    return agent;
  }
  // One that has enrolled, and is away.
  LabAgent enrolled() {
    auto agent = newAgent();
    {
      LabGuest guest;
      connect(guest, agent, agent.enrolment());
      KJ_REQUIRE(guest.isIn());
      KJ_REQUIRE(commit(guest, agent));
    }
    settle();
    log.events.clear();
    return agent;
  }

  // Begins the handshake; turn the loop for it to go on.
  void begin(LabGuest& guest, LabAgent& agent, GuestCredentials credentials) {
    auto pair = newSocketPair(SOCK_STREAM);
    auto connection = [](kj::AutoCloseFd fd) {
      return Connection{TransportKind::UNIX, DescriptorKind::SOCKET, UnknownPeer(), kj::mv(fd)};
    };
    guest.outcome = hub->link(connection(kj::mv(pair.first)), kj::str("a test")).eagerlyEvaluate(nullptr);
    attach(guest, agent, kj::mv(credentials), kj::mv(pair.second));
  }
  // The guest's end alone.
  void attach(LabGuest& guest, LabAgent& agent, GuestCredentials credentials, kj::AutoCloseFd socket) {
    Connection connection{TransportKind::UNIX, DescriptorKind::SOCKET, UnknownPeer(), kj::mv(socket)};
    Hello hello;
    describeCredentials(credentials, hello);
    file.random.fill(kj::arrayPtr(hello.nonce.data(), hello.nonce.size()));
    ++agent.confirmation.sessionCounter;
    auto kept = kj::heap(kj::mv(credentials));
    auto& creds = *kept;
    auto deadline = timer.now() + limits::HANDSHAKE_DEADLINE;
    guest.task = openStreamLink(newPipe(io.unixEventPort, kj::mv(connection)), hello, scratch)
                     .then([this, &creds, &agent, deadline](auto link) {
                       KJ_REQUIRE(link.template is<kj::Own<FrameLink>>(), "the host closed without a HELLO");
                       return establishAsGuest(kj::mv(link.template get<kj::Own<FrameLink>>()), creds,
                                               agent.confirmation, deadline, environment);
                     })
                     .then([this, &guest, &agent](kj::OneOf<GuestSession, EstablishFailure> result) {
                       established(guest, agent, kj::mv(result));
                     })
                     .attach(kj::mv(kept))
                     .eagerlyEvaluate([&guest](kj::Exception&&) { guest.failure = EstablishFailure(LinkEnd::ENDED); });
  }
  void connect(LabGuest& guest, LabAgent& agent, GuestCredentials credentials) {
    begin(guest, agent, kj::mv(credentials));
    settle();
  }
  // Of an enrolment. RPC begins after it.
  bool commit(LabGuest& guest, LabAgent& agent) {
    auto committed = KJ_REQUIRE_NONNULL(guest.session)->commit();
    settle();
    if (!committed.poll(io.waitScope)) return false;
    startRpc(guest, agent);
    settle();
    return true;
  }
  void startRpc(LabGuest& guest, LabAgent& agent) {
    auto& session = *KJ_REQUIRE_NONNULL(guest.session);
    wire::Guest::Client server = kj::heap<AgentServer>(agent.calls);
    KJ_IF_MAYBE (make, agent.bootstrap) server = (*make)();
    guest.rpc = kj::heap<RpcConnection>(session, Role::GUEST, kj::mv(server), [](kj::StringPtr) {});
  }
  void connect(LabGuest& guest, LabAgent& agent) { connect(guest, agent, agent.identity()); }

  // The answered interval, or 0 if it was not answered.
  uint32_t beat(LabGuest& guest, const LabAgent& agent,
                wire::Heartbeat::State state = wire::Heartbeat::State::RUNNING) {
    auto request = guest.host().heartbeatRequest();
    request.setSequence(++sequence);
    request.setIntervalMilliseconds(1000);
    request.setBootIdHigh(agent.confirmation.bootId.high);
    request.setBootIdLow(agent.confirmation.bootId.low);
    request.setAgentVersion("1.0");
    request.setState(state);
    auto answer = request.send();
    settle();
    if (!answer.poll(io.waitScope)) return 0;
    return answer.wait(io.waitScope).getIntervalMilliseconds();
  }
  void sayGoodbye(LabGuest& guest, wire::Goodbye why) {
    auto request = guest.host().goodbyeRequest();
    request.setWhy(why);
    auto answer = request.send().ignoreResult().eagerlyEvaluate([](kj::Exception&&) {});
    settle();
  }
  // As a process that is killed.
  void kill(LabGuest& guest) {
    guest.rpc = nullptr;
    guest.session = nullptr;
    guest.task = nullptr;
    guest.ending = nullptr;
    settle();
  }

 private:
  uint64_t sequence = 0;

  void established(LabGuest& guest, LabAgent& agent, kj::OneOf<GuestSession, EstablishFailure> result) {
    if (result.is<EstablishFailure>()) {
      guest.failure = kj::mv(result.get<EstablishFailure>());
      return;
    }
    auto& made = result.get<GuestSession>();
    KJ_IF_MAYBE (secret, made.acceptance.linkSecret) {
      agent.linkSecret = LinkSecret{secret->bytes.clone()};
      agent.host = made.host;
    }
    guest.ending =
        made.session->onEnd().then([&guest](SessionEnd end) { guest.end = end; }).eagerlyEvaluate([](kj::Exception&&) {
        });
    bool enrolling = made.acceptance.linkSecret != nullptr;
    guest.session = kj::mv(made.session);
    if (!enrolling) startRpc(guest, agent);
  }
};

}  // namespace postern::host::test
