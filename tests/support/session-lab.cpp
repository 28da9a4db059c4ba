#include "tests/support/session-lab.h"

#include <kj/debug.h>

#include "protocol/limits.h"

namespace postern::test {

kj::Maybe<const HostIdentity&> LabKeyring::identityFor(const Hint& hint) {
  KJ_IF_MAYBE (own, identity) {
    if (keyHint(own->own.publicKey(), own->guest) == hint) return *own;
  }
  return nullptr;
}

kj::Maybe<const HostEnrolment&> LabKeyring::enrolmentFor(const Hint& hint) {
  KJ_IF_MAYBE (own, enrolment) {
    if (tokenHint(own->token) == hint) return *own;
  }
  return nullptr;
}

SessionLab::SessionLab(uint64_t seed)
    : waitScope(loop), timer(kj::origin<kj::TimePoint>()), random(seed), pool(timer), environment{timer, pool, random} {
  random.fill(kj::arrayPtr(vm.bytes.data(), vm.bytes.size()));
  auto guestKeys = GuestKeyPair::generate(random);
  auto hostKeys = HostKeyPair::generate(random);
  auto secret = LinkSecret::generate(random);
  auto hostPublic = hostKeys.publicKey();
  keyring.identity = HostIdentity{vm, kj::mv(hostKeys), guestKeys.publicKey(), LinkSecret{secret.bytes.clone()}};
  guestCredentials = GuestIdentity{vm, kj::mv(guestKeys), hostPublic, kj::mv(secret)};
  guestHello.role = Role::GUEST;
  hostHello.role = Role::HOST;
  hostHello.patterns = PATTERN_KKPSK0 | PATTERN_XXPSK0;
  confirmation.sessionCounter = 1;
}

SessionLab::~SessionLab() noexcept(false) {}

void SessionLab::useEnrolment() {
  auto token = EnrolmentToken::generate(random);
  auto guestKeys = GuestKeyPair::generate(random);
  auto hostKeys = HostKeyPair::generate(random);
  auto hostPublic = hostKeys.publicKey();
  keyring.enrolment = HostEnrolment{vm, kj::mv(hostKeys), nullptr, EnrolmentToken{token.bytes.clone()}};
  keyring.identity = nullptr;
  guestCredentials = GuestEnrolment{vm, kj::mv(guestKeys), hostPublic, kj::mv(token)};
}

void SessionLab::settle() {
  waitScope.poll();
}

void SessionLab::advance(kj::Duration by) {
  timer.advanceTo(timer.now() + by);
  settle();
}

template <typename Outcome>
kj::Promise<Outcome> SessionLab::within(kj::TimePoint deadline, kj::Promise<Outcome> promise) {
  auto late = timer.atTime(deadline).then([]() { return Outcome(EstablishFailure(TimedOut())); });
  return promise.exclusiveJoin(kj::mv(late));
}

kj::Promise<GuestOutcome> SessionLab::startGuest(kj::Own<BytePipe> pipe) {
  describeCredentials(guestCredentials, guestHello);
  random.fill(kj::arrayPtr(guestHello.nonce.data(), guestHello.nonce.size()));
  auto deadline = timer.now() + limits::HANDSHAKE_DEADLINE;
  auto established =
      openStreamLink(kj::mv(pipe), guestHello, scratch)
          .then([this, deadline](kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd> link) -> kj::Promise<GuestOutcome> {
            if (link.is<HelloError>()) return GuestOutcome(link.get<HelloError>());
            if (link.is<LinkEnd>()) return GuestOutcome(EstablishFailure(link.get<LinkEnd>()));
            return establishAsGuest(kj::mv(link.get<kj::Own<FrameLink>>()), guestCredentials, confirmation, deadline,
                                    environment)
                .then([](kj::OneOf<GuestSession, EstablishFailure> result) {
                  if (result.is<EstablishFailure>()) return GuestOutcome(kj::mv(result.get<EstablishFailure>()));
                  return GuestOutcome(kj::mv(result.get<GuestSession>()));
                });
          });
  return within(deadline, kj::mv(established));
}

kj::Promise<HostOutcome> SessionLab::startHost(kj::Own<BytePipe> pipe) {
  random.fill(kj::arrayPtr(hostHello.nonce.data(), hostHello.nonce.size()));
  auto deadline = timer.now() + limits::HANDSHAKE_DEADLINE;
  auto established =
      openStreamLink(kj::mv(pipe), hostHello, scratch)
          .then([this, deadline](kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd> link) -> kj::Promise<HostOutcome> {
            if (link.is<HelloError>()) return HostOutcome(link.get<HelloError>());
            if (link.is<LinkEnd>()) return HostOutcome(EstablishFailure(link.get<LinkEnd>()));
            return establishAsHost(kj::mv(link.get<kj::Own<FrameLink>>()), keyring, deadline, environment)
                .then([](kj::OneOf<kj::Own<IncomingSession>, EstablishFailure> result) {
                  if (result.is<EstablishFailure>()) return HostOutcome(kj::mv(result.get<EstablishFailure>()));
                  return HostOutcome(kj::mv(result.get<kj::Own<IncomingSession>>()));
                });
          });
  return within(deadline, kj::mv(established));
}

SessionLab::Sessions SessionLab::connect() {
  auto guestPromise = startGuest(wire.guestEnd());
  auto hostPromise = startHost(wire.hostEnd());
  auto hostOutcome = hostPromise.wait(waitScope);
  KJ_ASSERT(hostOutcome.is<kj::Own<IncomingSession>>(), "the host refused");
  auto& incoming = *hostOutcome.get<kj::Own<IncomingSession>>();
  Acceptance acceptance;
  if (incoming.isEnrolment()) acceptance.linkSecret = LinkSecret::generate(random);
  auto host = incoming.accept(acceptance);
  auto guestOutcome = guestPromise.wait(waitScope);
  KJ_ASSERT(guestOutcome.is<GuestSession>(), "the guest refused");
  Sessions sessions{kj::mv(guestOutcome.get<GuestSession>().session), kj::mv(host)};
  if (incoming.isEnrolment()) {
    auto committed = sessions.guest->commit();
    sessions.host->whenCommit().wait(waitScope);
    sessions.host->confirmCommit();
    committed.wait(waitScope);
  }
  return sessions;
}

SessionLab::Sessions SessionLab::connectWithoutHandshake() {
  random.fill(kj::arrayPtr(guestHello.nonce.data(), guestHello.nonce.size()));
  random.fill(kj::arrayPtr(hostHello.nonce.data(), hostHello.nonce.size()));
  auto guestPromise = openStreamLink(wire.guestEnd(), guestHello, scratch).eagerlyEvaluate(nullptr);
  auto hostPromise = openStreamLink(wire.hostEnd(), hostHello, scratch).eagerlyEvaluate(nullptr);
  auto guestOutcome = guestPromise.wait(waitScope);
  auto hostOutcome = hostPromise.wait(waitScope);
  auto guestLink = kj::mv(guestOutcome.get<kj::Own<FrameLink>>());
  auto hostLink = kj::mv(hostOutcome.get<kj::Own<FrameLink>>());
  Secret<32> toHost, toGuest;
  random.fill(toHost.asPtr());
  random.fill(toGuest.asPtr());
  auto tag = linkTag(guestLink->hellos());
  return {kj::heap<Session>(Role::GUEST, kj::mv(guestLink), RecordSealer({toHost.clone()}, tag),
                            RecordOpener({toGuest.clone()}), false, environment),
          kj::heap<Session>(Role::HOST, kj::mv(hostLink), RecordSealer({toGuest.clone()}, tag),
                            RecordOpener({toHost.clone()}), false, environment)};
}

}  // namespace postern::test
