#include "tests/bench/crowd-guest.h"

#include <kj/debug.h>

#include "protocol/limits.h"
#include "transport/connector.h"
#include "transport/stream-link.h"

namespace postern::bench {

namespace {

constexpr auto INTERVAL = 1 * kj::SECONDS;

// One for everybody: what it answers depends on nobody.
class Calls final : public schema::GuestCalls::Server {
 protected:
  kj::Promise<void> ping(PingContext) override { return kj::READY_NOW; }
};
class Agent final : public schema::Guest::Server {
 protected:
  kj::Promise<void> callsFor(CallsForContext context) override {
    context.getResults().setCalls(kj::heap<Calls>());
    return kj::READY_NOW;
  }
};

}  // namespace

CrowdLoop::CrowdLoop(kj::AsyncIoContext& io)
    : port(io.unixEventPort), timer(port.getTimer()), pool(timer), environment{timer, pool, random} {}

struct CrowdGuest::Live {
  kj::Own<Session> session;
  RpcConnection rpc;
  schema::Host::Client host;
  // Kept, as an agent does: that it was used up is told with the next heartbeat.
  kj::Maybe<capnp::Response<schema::Host::HeartbeatResults>> lastAnswer;
  kj::Promise<void> beating = nullptr;

  explicit Live(kj::Own<Session> sessionParam)
      : session(kj::mv(sessionParam)),
        rpc(*session, Role::GUEST, kj::heap<Agent>(), [](kj::StringPtr) {}),
        host(rpc.peer().castAs<schema::Host>()) {}
};

CrowdGuest::CrowdGuest(CrowdLoop& loop, kj::StringPtr name, kj::StringPtr socketPath)
    : loop(loop), vmName(kj::str(name)), socketPath(kj::str(socketPath)), backoff(newConnectBackoff(loop.random)) {
  VmId vm;
  auto& random = loop.random;
  random.fill(kj::arrayPtr(vm.bytes.data(), vm.bytes.size()));
  auto guestKeys = GuestKeyPair::generate(random);
  auto hostKeys = HostKeyPair::generate(random);
  auto secret = LinkSecret::generate(random);
  auto guestPublic = guestKeys.publicKey();
  auto hostPublic = hostKeys.publicKey();
  hostHalf.vm = vm;
  HostPair pair;
  pair.identity = HostIdentity{vm, kj::mv(hostKeys), guestPublic, LinkSecret{secret.bytes.clone()}};
  hostHalf.current = kj::mv(pair);
  credentials = GuestIdentity{vm, kj::mv(guestKeys), hostPublic, kj::mv(secret)};
  random.fill(kj::arrayPtr(reinterpret_cast<kj::byte*>(&confirmation.bootId), sizeof(confirmation.bootId)));
  random.fill(
      kj::arrayPtr(reinterpret_cast<kj::byte*>(&confirmation.agentInstance), sizeof(confirmation.agentInstance)));
}

CrowdGuest::~CrowdGuest() noexcept(false) {}

void CrowdGuest::start() {
  task = getIn().eagerlyEvaluate([this](kj::Exception&& e) { failure = kj::str(e.getDescription()); });
}

void CrowdGuest::cut() {
  task = nullptr;
  live = nullptr;
  in = false;
}

kj::Promise<void> CrowdGuest::getIn() {
  ++tries;
  return connectTo(loop.port, loop.timer, Endpoint(UnixEndpoint{kj::str(socketPath)}))
      .then([this](Connected connected) {
        if (connected.is<TransportError>()) return tryAgain(connected.get<TransportError>().text);
        return meet(kj::mv(connected.get<Connection>()));
      });
}

kj::Promise<void> CrowdGuest::tryAgain(kj::StringPtr why) {
  failure = kj::str(why);
  return loop.timer.afterDelay(backoff.next()).then([this]() { return getIn(); });
}

kj::Promise<void> CrowdGuest::meet(Connection connection) {
  Hello hello;
  hello.role = Role::GUEST;
  describeCredentials(credentials, hello);
  loop.random.fill(kj::arrayPtr(hello.nonce.data(), hello.nonce.size()));
  using Opened = kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd>;
  // An agent's: what waits in the listen queue is not yet the host's handshake.
  auto deadline = loop.timer.now() + limits::CONNECT_TIMEOUT + limits::HANDSHAKE_DEADLINE;
  auto late = loop.timer.atTime(deadline).then([]() -> Opened { return LinkEnd::CLOSED; });
  return openStreamLink(newPipe(loop.port, kj::mv(connection)), hello, loop.scratch)
      .exclusiveJoin(kj::mv(late))
      .then([this, deadline](Opened opened) {
        if (!opened.is<kj::Own<FrameLink>>()) return tryAgain("closed before HELLO");
        return establish(kj::mv(opened.get<kj::Own<FrameLink>>()), deadline);
      });
}

kj::Promise<void> CrowdGuest::establish(kj::Own<FrameLink> link, kj::TimePoint deadline) {
  ++confirmation.sessionCounter;
  return establishAsGuest(kj::mv(link), credentials, confirmation, deadline, loop.environment)
      .then([this](kj::OneOf<GuestSession, EstablishFailure> result) -> kj::Promise<void> {
        if (result.is<EstablishFailure>()) return tryAgain(describe(result.get<EstablishFailure>()));
        live = kj::heap<Live>(kj::mv(result.get<GuestSession>().session));
        backoff.reset();
        return stay();
      });
}

// As long as the session lasts, and then again.
kj::Promise<void> CrowdGuest::stay() {
  auto& current = *KJ_ASSERT_NONNULL(live);
  current.beating = beat(loop.timer.now()).eagerlyEvaluate([](kj::Exception&&) {});
  return current.session->onEnd().then([this](SessionEnd end) {
    in = false;
    auto why = describe(end);
    live = nullptr;
    return tryAgain(why);
  });
}

kj::Promise<void> CrowdGuest::beat(kj::TimePoint due) {
  auto request = KJ_ASSERT_NONNULL(live)->host.heartbeatRequest();
  request.setSequence(++sequence);
  request.setIntervalMilliseconds(INTERVAL / kj::MILLISECONDS);
  request.setBootIdHigh(confirmation.bootId.high);
  request.setBootIdLow(confirmation.bootId.low);
  request.setUptimeMilliseconds(sequence * 1000);
  request.setAgentUptimeMilliseconds(sequence * 1000);
  request.setLoopLagMicroseconds(100);
  request.setLoad1(5);
  request.setMemoryTotalKiB(1 << 20);
  request.setMemoryAvailableKiB(1 << 19);
  request.initPolicyHash(32);
  request.setAgentVersion(POSTERN_VERSION);
  KJ_ASSERT_NONNULL(live)->lastAnswer = nullptr;
  return request.send().then([this, due](capnp::Response<schema::Host::HeartbeatResults> answer) {
    KJ_ASSERT_NONNULL(live)->lastAnswer = kj::mv(answer);
    ++answered;
    in = true;
    auto next = kj::max(due + INTERVAL, loop.timer.now());
    return loop.timer.atTime(next).then([this, next]() { return beat(next); });
  });
}

}  // namespace postern::bench
