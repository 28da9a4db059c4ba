#include "guest-agent/agent/entrance.h"

#include "protocol/limits.h"

namespace postern::guest {

Entrance::Entrance(Links& links, Pairing& pairing, const Confirmation& confirmation,
                   const SessionEnvironment& environment)
    : links(links),
      pairing(pairing),
      confirmation{confirmation.features, 0, confirmation.bootId, confirmation.agentInstance, nullptr},
      environment(environment) {}

kj::Promise<Entry> Entrance::enter(Pairing::Attempt attempt) {
  auto state = kj::heap<State>(State{attempt, pairing.credentials(attempt), confirmation});
  auto& s = *state;
  return links.next(s.credentials)
      .then([this, &s](kj::OneOf<kj::Own<FrameLink>, NoLink> link) -> kj::Promise<Entry> {
        if (link.is<NoLink>()) return Entry(kj::mv(link.get<NoLink>()));
        return handshake(s, kj::mv(link.get<kj::Own<FrameLink>>()));
      })
      .attach(kj::mv(state));
}

kj::Promise<Entry> Entrance::handshake(State& state, kj::Own<FrameLink> link) {
  auto counter = pairing.nextCounter(state.attempt);
  if (counter.is<VaultError>()) return Entry(Stuck{kj::mv(counter.get<VaultError>().text)});
  state.confirmation.sessionCounter = counter.get<uint64_t>();
  return establishAsGuest(kj::mv(link), state.credentials, state.confirmation,
                          environment.timer.now() + limits::HANDSHAKE_DEADLINE, environment)
      .then([this, &state](kj::OneOf<GuestSession, EstablishFailure> result) -> kj::Promise<Entry> {
        if (result.is<EstablishFailure>()) return refused(state.attempt, describe(result.get<EstablishFailure>()));
        auto& established = result.get<GuestSession>();
        if (state.attempt.way == Pairing::Way::ENROLMENT) return commit(state.attempt, kj::mv(established));
        return committed(state.attempt, kj::mv(established.session));
      });
}

kj::Promise<Entry> Entrance::commit(Pairing::Attempt attempt, GuestSession established) {
  KJ_IF_MAYBE (secret, established.acceptance.linkSecret) {
    KJ_IF_MAYBE (error, pairing.accepted(attempt, established.host, kj::mv(*secret))) {
      return Entry(Stuck{kj::mv(error->text)});
    }
  } else {
    return refused(attempt, "it took the enrolment and gave no link secret");
  }
  auto session = kj::mv(established.session);
  auto& reference = *session;
  auto late = environment.timer.afterDelay(COMMIT_DEADLINE).then([]() { return false; });
  return reference.commit()
      .then([]() { return true; }, [](kj::Exception&&) { return false; })
      .exclusiveJoin(kj::mv(late))
      .then([this, attempt, session = kj::mv(session)](bool done) mutable {
        if (done) return committed(attempt, kj::mv(session));
        // Not a refusal of the keys: the host may have committed.
        return Entry(NoLink{kj::str("the connection ended within the enrolment; it is taken up again")});
      });
}

Entry Entrance::committed(Pairing::Attempt attempt, kj::Own<Session> session) {
  KJ_IF_MAYBE (error, pairing.committed(attempt)) return Stuck{kj::mv(error->text)};
  return Entered{kj::mv(session)};
}

Entry Entrance::refused(Pairing::Attempt attempt, kj::StringPtr why) {
  KJ_IF_MAYBE (error, pairing.refused(attempt)) return Stuck{kj::mv(error->text)};
  return Refused{kj::str(why)};
}

}  // namespace postern::guest
