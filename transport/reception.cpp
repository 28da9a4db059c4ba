#include "transport/reception.h"

#include <kj/debug.h>

#include "protocol/limits.h"
#include "transport/stream-link.h"

namespace postern {

namespace {

Hello hostHello(TransportKind transport, Random& random) {
  Hello hello;
  hello.role = Role::HOST;
  hello.transport = transport;
  hello.patterns = PATTERN_KKPSK0 | PATTERN_XXPSK0;  // which of them a guest may use is the keyring's to say
  random.fill(kj::arrayPtr(hello.nonce.data(), hello.nonce.size()));
  return hello;
}

using HelloOutcome = kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd, TimedOut>;

kj::Promise<HelloOutcome> exchangeHellos(Connection connection, kj::TimePoint deadline,
                                         const ReceptionEnvironment& environment) {
  auto hello = hostHello(connection.transport, environment.session.random);
  if (connection.transport == TransportKind::UNIX) limitSendBuffer(connection.fd, limits::UNIX_SEND_BUFFER_BYTES);
  auto link = openStreamLink(newPipe(environment.port, kj::mv(connection)), hello, environment.scratch)
                  .then([](auto opened) -> HelloOutcome { return kj::mv(opened); });
  auto late = environment.session.timer.atTime(deadline).then([]() -> HelloOutcome { return TimedOut(); });
  return link.exclusiveJoin(kj::mv(late));
}

}  // namespace

kj::Promise<Received> receive(Connection connection, HostKeyring& keyring, kj::TimePoint deadline,
                              const ReceptionEnvironment& environment) {
  return exchangeHellos(kj::mv(connection), deadline, environment)
      .then([&keyring, deadline, session = environment.session](HelloOutcome outcome) -> kj::Promise<Received> {
        KJ_SWITCH_ONEOF(outcome) {
          KJ_CASE_ONEOF(error, HelloError) return Received(error);
          KJ_CASE_ONEOF(end, LinkEnd) return Received(EstablishFailure(end));
          KJ_CASE_ONEOF(late, TimedOut) return Received(EstablishFailure(late));
          KJ_CASE_ONEOF(link, kj::Own<FrameLink>) {
            return establishAsHost(kj::mv(link), keyring, deadline, session).then([](auto result) -> Received {
              return kj::mv(result);
            });
          }
        }
        KJ_UNREACHABLE;
      });
}

kj::StringPtr describe(const Rejection& rejection) {
  KJ_SWITCH_ONEOF(rejection) {
    KJ_CASE_ONEOF(_, Stranger) return "no VM has this address";
    KJ_CASE_ONEOF(refusal, Refusal) return describe(refusal);
    KJ_CASE_ONEOF(error, HelloError) return describe(error);
    KJ_CASE_ONEOF(failure, EstablishFailure) return describe(failure);
    KJ_CASE_ONEOF(exception, kj::Exception) return exception.getDescription();
  }
  KJ_UNREACHABLE;
}

// A visitor whose connection is with receive().
struct Reception::Attempt {
  PeerAddress peer;
  kj::String vm;
  kj::Own<Admission::HalfOpen> halfOpen;
};

Reception::Reception(Listener& listener, Admission& admission, PickVm pickVm, Handler& handler,
                     const ReceptionEnvironment& environment)
    : handler(handler),
      environment(environment),
      doorkeeper(listener, admission, environment.session.timer, kj::mv(pickVm)),
      attempts(*this),
      accepting(acceptAll().eagerlyEvaluate(
          [this](kj::Exception&& exception) { this->handler.stopped(kj::mv(exception)); })) {}

kj::Promise<void> Reception::acceptAll() {
  return doorkeeper.next().then([this](Doorkeeper::Outcome outcome) {
    KJ_SWITCH_ONEOF(outcome) {
      KJ_CASE_ONEOF(visitor, Visitor) attempts.add(attend(kj::mv(visitor)));
      KJ_CASE_ONEOF(turned, TurnedAway) {
        KJ_SWITCH_ONEOF(turned.why) {
          KJ_CASE_ONEOF(why, Stranger) handler.rejected(why, turned.peer, turned.vm);
          KJ_CASE_ONEOF(why, Refusal) handler.rejected(why, turned.peer, turned.vm);
        }
      }
    }
    return acceptAll();
  });
}

kj::Promise<void> Reception::attend(Visitor visitor) {
  auto attempt = kj::heap<Attempt>(Attempt{visitor.connection.peer, kj::mv(visitor.vm), kj::mv(visitor.attempt)});
  auto& reference = *attempt;
  auto& keyring = handler.keyringOf(reference.vm);
  return kj::evalNow([&] { return receive(kj::mv(visitor.connection), keyring, visitor.deadline, environment); })
      .then([this, &reference](Received outcome) { concluded(reference, kj::mv(outcome)); },
            [this, &reference](kj::Exception&& failure) {
              reference.halfOpen = nullptr;
              handler.rejected(kj::mv(failure), reference.peer, reference.vm);
            })
      .attach(kj::mv(attempt));
}

void Reception::concluded(Attempt& attempt, Received outcome) {
  if (outcome.is<kj::Own<IncomingSession>>()) attempt.halfOpen->succeeded();
  attempt.halfOpen = nullptr;
  KJ_SWITCH_ONEOF(outcome) {
    KJ_CASE_ONEOF(guest, kj::Own<IncomingSession>) handler.arrived(kj::mv(guest), attempt.peer, attempt.vm);
    KJ_CASE_ONEOF(error, HelloError) handler.rejected(error, attempt.peer, attempt.vm);
    KJ_CASE_ONEOF(failure, EstablishFailure) handler.rejected(kj::mv(failure), attempt.peer, attempt.vm);
  }
}

// Only a handler that throws gets here.
void Reception::taskFailed(kj::Exception&& exception) {
  accepting = nullptr;
  handler.stopped(kj::mv(exception));
}

}  // namespace postern
