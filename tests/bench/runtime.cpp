#include "tests/bench/runtime.h"

#include <kj/debug.h>

#include "tests/support/test-random.h"
#include "transport/fd-pipe.h"
#include "transport/stream-link.h"

namespace postern::bench {

namespace {

// A measurement may run beside a build; only a process that died is waited for in vain.
constexpr auto DEADLINE = 60 * kj::SECONDS;

kj::Own<FrameLink> linkOf(kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd> outcome) {
  KJ_REQUIRE(outcome.is<kj::Own<FrameLink>>(), "HELLO failed");
  return kj::mv(outcome.get<kj::Own<FrameLink>>());
}

}  // namespace

EnrolledPair::EnrolledPair() {
  test::TestRandom random;
  VmId vm;
  random.fill(kj::arrayPtr(vm.bytes.data(), vm.bytes.size()));
  auto guestKeys = GuestKeyPair::generate(random);
  auto hostKeys = HostKeyPair::generate(random);
  auto secret = LinkSecret::generate(random);
  auto hostPublic = hostKeys.publicKey();
  host.identity = HostIdentity{vm, kj::mv(hostKeys), guestKeys.publicKey(), LinkSecret{secret.bytes.clone()}};
  guest = GuestIdentity{vm, kj::mv(guestKeys), hostPublic, kj::mv(secret)};
  confirmation.sessionCounter = 1;
}

Runtime::Runtime(uint polling)
    : io(kj::setupAsyncIo()), timer(io.provider->getTimer()), pool(timer), environment{timer, pool, random} {
  io.waitScope.setBusyPollInterval(polling);
}

kj::Own<BytePipe> Runtime::pipeOver(kj::AutoCloseFd socket) {
  KJ_IF_MAYBE (size, sendBuffer) limitSendBuffer(socket, *size);
  return newSocketPipe(io.unixEventPort, kj::mv(socket));
}

kj::Promise<kj::Own<Session>> Runtime::connectGuest(kj::AutoCloseFd socket, EnrolledPair& pair) {
  Hello hello;
  hello.role = Role::GUEST;
  describeCredentials(pair.guest, hello);
  random.fill(kj::arrayPtr(hello.nonce.data(), hello.nonce.size()));
  return openStreamLink(pipeOver(kj::mv(socket)), hello, scratch)
      .then([this, &pair](kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd> link) {
        return establishAsGuest(linkOf(kj::mv(link)), pair.guest, pair.confirmation, timer.now() + DEADLINE,
                                environment);
      })
      .then([](kj::OneOf<GuestSession, EstablishFailure> result) {
        KJ_REQUIRE(result.is<GuestSession>(), "no session", describe(result.get<EstablishFailure>()));
        return kj::mv(result.get<GuestSession>().session);
      });
}

kj::Promise<kj::Own<Session>> Runtime::connectHost(kj::AutoCloseFd socket, EnrolledPair& pair) {
  Hello hello;
  hello.role = Role::HOST;
  hello.patterns = PATTERN_KKPSK0 | PATTERN_XXPSK0;
  random.fill(kj::arrayPtr(hello.nonce.data(), hello.nonce.size()));
  return openStreamLink(pipeOver(kj::mv(socket)), hello, scratch)
      .then([this, &pair](kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd> link) {
        return establishAsHost(linkOf(kj::mv(link)), pair.host, timer.now() + DEADLINE, environment);
      })
      .then([](kj::OneOf<kj::Own<IncomingSession>, EstablishFailure> result) {
        KJ_REQUIRE(result.is<kj::Own<IncomingSession>>(), "no session", describe(result.get<EstablishFailure>()));
        return result.get<kj::Own<IncomingSession>>()->accept(Acceptance{});
      });
}

}  // namespace postern::bench
