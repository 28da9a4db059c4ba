#include "tests/crowd/honest-guest.h"

#include <doctest/doctest.h>

#include "protocol/limits.h"
#include "transport/connector.h"

namespace postern::test {

HonestGuest::HonestGuest(CrowdHost& host, CrowdHost::Vm& vm)
    : host(host),
      vm(vm),
      backoff(newConnectBackoff(host.random)),
      task(getIn().eagerlyEvaluate([](kj::Exception&& exception) { FAIL(exception.getDescription().cStr()); })) {}

kj::Promise<void> HonestGuest::getIn() {
  ++attempts;
  return connectTo(host.loop.port, host.timer, Endpoint(UnixEndpoint{kj::str(vm.path)}))
      .then([this](Connected connected) {
        if (connected.is<TransportError>()) return tryAgain();
        return meet(kj::mv(connected.get<Connection>()));
      });
}

kj::Promise<void> HonestGuest::tryAgain() {
  return host.timer.afterDelay(backoff.next()).then([this]() { return getIn(); });
}

kj::Promise<void> HonestGuest::meet(Connection connection) {
  describeCredentials(vm.keys.enrolled, hello);
  host.random.fill(kj::arrayPtr(hello.nonce.data(), hello.nonce.size()));
  using Opened = kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd>;
  auto deadline = host.timer.now() + limits::HANDSHAKE_DEADLINE;
  auto late = host.timer.atTime(deadline).then([]() -> Opened { return LinkEnd::CLOSED; });
  return openStreamLink(newPipe(host.loop.port, kj::mv(connection)), hello, host.scratch)
      .exclusiveJoin(kj::mv(late))
      .then([this, deadline](Opened opened) {
        if (!opened.is<kj::Own<FrameLink>>()) return tryAgain();
        return establish(kj::mv(opened.get<kj::Own<FrameLink>>()), deadline);
      });
}

kj::Promise<void> HonestGuest::establish(kj::Own<FrameLink> link, kj::TimePoint deadline) {
  return establishAsGuest(kj::mv(link), vm.keys.enrolled, confirmation, deadline, host.environment.session)
      .then([this](kj::OneOf<GuestSession, EstablishFailure> result) -> kj::Promise<void> {
        if (result.is<EstablishFailure>()) return tryAgain();
        session = kj::mv(result.get<GuestSession>().session);
        return kj::READY_NOW;
      });
}

}  // namespace postern::test
