#include "host/session/hub.h"

#include <kj/debug.h>

#include "protocol/limits.h"
#include "transport/printable.h"
#include "transport/serial-link.h"

namespace postern::host {

namespace {

kj::StringPtr describe(postern::schema::Goodbye why) {
  switch (why) {
    case postern::schema::Goodbye::SHUTDOWN:
      return "the guest is shutting down";
    case postern::schema::Goodbye::RESTART:
      return "the guest is restarting";
    case postern::schema::Goodbye::SUSPEND:
      return "the guest is being suspended";
    case postern::schema::Goodbye::AGENT_STOPPED:
      break;
  }
  return "the agent was stopped";
}

schema::SessionObserver::Loss lossOf(const SessionEnd& how) {
  switch (how.reason) {
    case EndReason::BAD_FRAME:
    case EndReason::BAD_RECORD:
    case EndReason::PROTOCOL_ERROR:
      return schema::SessionObserver::Loss::PROTOCOL_ERROR;
    default:
      return schema::SessionObserver::Loss::CUT;
  }
}

bool isZero(const Uint128& id) {
  return id == Uint128();
}

Hello serialOffer() {
  Hello hello;
  hello.role = Role::HOST;
  hello.patterns = PATTERN_KKPSK0 | PATTERN_XXPSK0;
  return hello;
}

}  // namespace

// A pipe that has no connections of its own. It goes last: the link writes to it when it is destroyed.
struct Hub::Serial {
  kj::Own<BytePipe> pipe;
  SerialLink link;
  kj::Own<kj::PromiseFulfiller<Outcome>> over;
  bool isOver = false;
  std::list<kj::Own<kj::PromiseFulfiller<void>>> waiting;  // until it is over
  kj::Promise<void> serving = nullptr;

  Serial(kj::Own<BytePipe> pipeParam, kj::Own<kj::PromiseFulfiller<Outcome>> over, const Environment& environment)
      : pipe(kj::mv(pipeParam)),
        link(*pipe, serialOffer(), environment.session.random, environment.session.timer, environment.scratch),
        over(kj::mv(over)) {}

  void end(Outcome outcome) {
    isOver = true;
    over->fulfill(kj::mv(outcome));
    for (auto& waiter : waiting) waiter->fulfill();
    waiting.clear();
  }
};

Hub::Hub(VmKeys& keys, Observer& observer, const Environment& environment)
    : keys(keys), observer(observer), environment(environment), tasks(*this) {}

Hub::~Hub() noexcept(false) {
  // Their sessions before the serial link's pipe.
  primary = nullptr;
  enrolling = nullptr;
}

kj::Maybe<GuestEnd&> Hub::connected() {
  KJ_IF_MAYBE (guest, primary) return **guest;
  return nullptr;
}

// Links ------------------------------------------------------------------------------------------------------------

kj::Promise<Hub::Outcome> Hub::link(Connection connection, kj::String peer) {
  if (connection.transport == TransportKind::SERIAL) return linkSerial(kj::mv(connection));
  return linkStream(kj::mv(connection), kj::mv(peer));
}

kj::Promise<Hub::Outcome> Hub::linkStream(Connection connection, kj::String peer) {
  auto deadline = timer().now() + limits::HANDSHAKE_DEADLINE;
  ReceptionEnvironment reception{environment.port, environment.scratch, environment.session};
  ++handshakes;
  return receive(kj::mv(connection), keys, deadline, reception)
      .then([this, peer = kj::mv(peer), offer = keys.offerNumber()](Received received) mutable -> Outcome {
        KJ_SWITCH_ONEOF(received) {
          KJ_CASE_ONEOF(error, HelloError) return {false, kj::str(postern::describe(error))};
          KJ_CASE_ONEOF(failure, EstablishFailure) {
            reportFailure(failure);
            return {false, kj::str(postern::describe(failure))};
          }
          KJ_CASE_ONEOF(guest, kj::Own<IncomingSession>) {
            tasks.add(arrived(kj::mv(guest), kj::mv(peer), offer));
            return {true, kj::String()};
          }
        }
        KJ_UNREACHABLE;
      })
      .attach(kj::defer([this]() { handshakeOver(); }));
}

kj::Promise<Hub::Outcome> Hub::linkSerial(Connection connection) {
  KJ_IF_MAYBE (earlier, serial) (*earlier)->end({false, kj::str("another connection took its place")});
  auto over = kj::newPromiseAndFulfiller<Outcome>();
  auto made = kj::heap<Serial>(newPipe(environment.port, kj::mv(connection)), kj::mv(over.fulfiller), environment);
  auto& link = *made;
  link.serving =
      kj::evalLater([this, &link]() { return serveSerial(link); }).eagerlyEvaluate([this, &link](kj::Exception&& e) {
        misfortune(e.getDescription());
        link.end({false, kj::str("this process failed")});
      });
  serial = kj::mv(made);
  return kj::mv(over.promise);
}

kj::Promise<void> Hub::whenSerialFree() {
  KJ_IF_MAYBE (link, serial) {
    if ((*link)->isOver) return kj::READY_NOW;
    auto waiter = kj::newPromiseAndFulfiller<void>();
    (*link)->waiting.remove_if([](auto& other) { return !other->isWaiting(); });
    (*link)->waiting.push_back(kj::mv(waiter.fulfiller));
    return waiter.promise.then([this]() { return whenSerialFree(); });
  }
  return kj::READY_NOW;
}

// One guest after the other, until the pipe ends.
kj::Promise<void> Hub::serveSerial(Serial& link) {
  return link.link.accept().then([this, &link](auto accepted) -> kj::Promise<void> {
    if (accepted.template is<LinkEnd>()) {
      link.end({true, kj::str("the VMM closed its end")});
      return kj::READY_NOW;
    }
    ++handshakes;
    auto deadline = timer().now() + limits::HANDSHAKE_DEADLINE;
    auto frames = kj::mv(accepted.template get<kj::Own<FrameLink>>());
    return establishAsHost(kj::mv(frames), keys, deadline, environment.session)
        .attach(kj::defer([this]() { handshakeOver(); }))
        .then([this, offer = keys.offerNumber()](auto result) -> kj::Promise<void> {
          if (result.template is<EstablishFailure>()) {
            reportFailure(result.template get<EstablishFailure>());
            return timer().afterDelay(SERIAL_REFUSAL_PAUSE);
          }
          return arrived(kj::mv(result.template get<kj::Own<IncomingSession>>()), kj::str("serial"), offer);
        })
        // What ended is destroyed by then.
        .then([]() { return kj::evalLast([]() {}); })
        .then([this, &link]() { return serveSerial(link); });
  });
}

void Hub::handshakeOver() {
  if (--handshakes == 0) keys.forgetReplaced();
}

void Hub::reportFailure(const EstablishFailure& failure) {
  KJ_IF_MAYBE (refusal, failure.tryGet<HandshakeRefusal>()) {
    if (*refusal == HandshakeRefusal::WRONG_GUEST_KEY) {
      tell(EventKind::TOKEN_REUSE,
           "a second key holds this VM's enrolment token; if nobody did that, revoke "
           "it with `postern vm rekey`"_kj);
      return;
    }
    bool keys = *refusal == HandshakeRefusal::UNKNOWN_HINT || *refusal == HandshakeRefusal::BAD_TAG;
    tell(EventKind::REFUSED, postern::describe(*refusal), static_cast<uint16_t>(keys ? Refused::KEYS : Refused::OTHER));
  }
}

void Hub::offerIssued(kj::Duration lifetime) {
  observer.stateChanged();
  // A token of N seconds is good until the wall clock's next full second, too.
  offerExpiry = timer()
                    .afterDelay(lifetime + 1 * kj::SECONDS)
                    .then([this]() { observer.stateChanged(); })
                    .eagerlyEvaluate([this](kj::Exception&& e) { misfortune(e.getDescription()); });
}

void Hub::diskFailed(StateFileError error) {
  tell(EventKind::TROUBLE, kj::str("the VM's state file ", postern::describe(error)));
}

// Arrivals ---------------------------------------------------------------------------------------------------------

kj::Promise<void> Hub::refuse(kj::Own<IncomingSession> guest, CloseCode code, kj::StringPtr why, Refused reason) {
  tell(EventKind::REFUSED, why, static_cast<uint16_t>(reason));
  auto done = guest->refuse(code);
  return done.attach(kj::mv(guest));
}

kj::Promise<void> Hub::arrived(kj::Own<IncomingSession> guest, kj::String peer, uint64_t offer) {
  if (guest->isEnrolment()) return arrivedToEnrol(kj::mv(guest), kj::mv(peer), offer);
  if (guest->confirmation().bulk != nullptr) {
    return refuse(kj::mv(guest), CloseCode::POLICY, "a connection for a transfer that is not under way");
  }
  // KKpsk0 with the keys of an offer: the guest has the secret, and COMMIT or its answer was lost.
  bool wasPending = keys.isPending(guest->guest());
  KJ_IF_MAYBE (error, keys.commit(guest->guest())) {
    diskFailed(*error);
    return refuse(kj::mv(guest), CloseCode::INTERNAL, "its enrolment could not be stored");
  }
  if (wasPending) tell(EventKind::ENROLLED, kj::str("guest key ", keys.guestFingerprint()));

  if (isDuplicate(guest->confirmation())) {
    return refuse(kj::mv(guest), CloseCode::DUPLICATE_IDENTITY, "two agents have this VM's identity",
                  Refused::CLONED_IDENTITY);
  }
  auto counted = keys.count(guest->confirmation().sessionCounter);
  KJ_SWITCH_ONEOF(counted) {
    KJ_CASE_ONEOF(error, StateFileError) {
      diskFailed(error);
      return refuse(kj::mv(guest), CloseCode::INTERNAL, "its session counter could not be stored");
    }
    KJ_CASE_ONEOF(counter, VmKeys::Counter) {
      if (counter == VmKeys::Counter::BACK) {
        tell(EventKind::ROLLBACK, "the guest's session counter went back: it was reset to an earlier state"_kj);
        if (rollback == schema::Rollback::DENY) {
          return refuse(kj::mv(guest), CloseCode::POLICY, "rolled-back guests are not let in (rollback = \"deny\")",
                        Refused::ROLLED_BACK);
        }
      }
    }
  }
  auto confirmation = guest->confirmation();
  auto end = kj::heap<GuestEnd>(guest->accept({}), confirmation, kj::mv(peer), timer(), *this);
  end->start();
  return seat(kj::mv(end));
}

kj::Promise<void> Hub::arrivedToEnrol(kj::Own<IncomingSession> guest, kj::String peer, uint64_t offer) {
  // It holds a token that was replaced, or used up, while its handshake was under way: that one proves nothing any
  // more, and the new one is not for it.
  if (offer != keys.offerNumber()) {
    return refuse(kj::mv(guest), CloseCode::POLICY, "its enrolment token was replaced meanwhile");
  }
  auto bound = keys.bind(guest->guest());
  KJ_IF_MAYBE (error, bound.tryGet<StateFileError>()) {
    diskFailed(*error);
    return refuse(kj::mv(guest), CloseCode::INTERNAL, "its enrolment could not be stored");
  }
  Acceptance acceptance;
  acceptance.linkSecret = kj::mv(bound.get<LinkSecret>());
  auto confirmation = guest->confirmation();
  auto key = guest->guest();
  auto end = kj::heap<GuestEnd>(guest->accept(acceptance), confirmation, kj::mv(peer), timer(), *this);
  auto& session = end->session();
  KJ_IF_MAYBE (earlier, enrolling) (*earlier)->detach();
  enrolling = kj::mv(end);
  auto committed = session.whenCommit().then([this, key, &session]() {
    KJ_IF_MAYBE (current, enrolling) {
      if (&(*current)->session() != &session) return;
      KJ_IF_MAYBE (error, keys.commit(key)) {
        diskFailed(*error);
        session.breakOff(CloseCode::INTERNAL, "the enrolment could not be stored");
        return;
      }
      session.confirmCommit();
      this->committed();
    }
  });
  auto late = timer().afterDelay(ENROLMENT_DEADLINE).then([this, &session]() {
    KJ_IF_MAYBE (current, enrolling) {
      if (&(*current)->session() == &session) session.breakOff(CloseCode::TIMED_OUT, "no COMMIT in time");
    }
  });
  // A session that ends fails whenCommit(), and ended() takes the guest away.
  tasks.add(committed.catch_([](kj::Exception&&) {}).exclusiveJoin(kj::mv(late)));
  return session.onEnd().ignoreResult();
}

void Hub::committed() {
  auto end = kj::mv(KJ_ASSERT_NONNULL(enrolling));
  enrolling = nullptr;
  tell(EventKind::ENROLLED, kj::str("guest key ", keys.guestFingerprint()));
  auto counted = keys.count(end->confirmation().sessionCounter);
  KJ_IF_MAYBE (error, counted.tryGet<StateFileError>()) diskFailed(*error);
  end->start();
  tasks.add(seat(kj::mv(end)));
}

// T44
bool Hub::isDuplicate(const Confirmation& confirmation) {
  auto now = timer().now();
  KJ_IF_MAYBE (d, duplicate) {
    if (now < d->until && confirmation.agentInstance == d->instance) return true;
  }
  KJ_IF_MAYBE (current, primary) {
    if ((*current)->confirmation().agentInstance == confirmation.agentInstance) return false;
    while (!replacements.empty() && now - replacements.front() > REPLACEMENT_WINDOW) replacements.pop_front();
    replacements.push_back(now);
    if (replacements.size() > MAX_REPLACEMENTS) {
      tell(EventKind::DUPLICATE_IDENTITY,
           "two agents connect with this VM's identity in turn: a cloned disk? The one that is connected "
           "stays"_kj);
      duplicate = Duplicate{confirmation.agentInstance, now + DUPLICATE_REFUSAL};
      replacements.clear();
      return true;
    }
  }
  return false;
}

kj::Promise<void> Hub::seat(kj::Own<GuestEnd> guest) {
  KJ_IF_MAYBE (old, primary) {
    (*old)->detach();
    auto closed = (*old)->session().close(CloseCode::REPLACED);
    tasks.add(closed.attach(kj::mv(*old)));
  }
  ++sessions;
  auto boot = guest->confirmation().bootId;
  auto text = kj::str("session ", sessions, " from ", guest->peer());
  auto over = guest->session().onEnd().ignoreResult();
  primary = kj::mv(guest);
  goodbyeSaid = nullptr;
  tell(EventKind::CONNECTED, text);
  observer.stateChanged();
  bootSeen(boot);
  rekeyIfInherited(*KJ_ASSERT_NONNULL(primary));
  return over;
}

// T122
void Hub::rekeyIfInherited(GuestEnd& guest) {
  if (!keys.wantsRekeying()) return;
  auto issued = keys.issue(REKEY_TOKEN_SECONDS);
  KJ_IF_MAYBE (error, issued.tryGet<StateFileError>()) return diskFailed(*error);
  auto& offer = issued.get<VmKeys::Issued>();
  offerIssued(REKEY_TOKEN_SECONDS * kj::SECONDS);
  auto request = guest.guest().rekeyRequest();
  request.setHostPublicKey(kj::arrayPtr(offer.host.bytes.data(), offer.host.bytes.size()));
  request.setToken(offer.token.bytes.asPtr());
  tasks.add(request.send().then(
      [this](auto answer) {
        if (!answer.hasRefusal()) return;
        tell(EventKind::TROUBLE, kj::str("the guest did not take new keys in place of those that another host had: ",
                                         printable(answer.getRefusal().getDetail(), 200)));
      },
      [this](kj::Exception&& e) {
        // Whoever has gone is asked again when it is back.
        if (e.getType() != kj::Exception::Type::UNIMPLEMENTED) return;
        tell(EventKind::TROUBLE,
             "its agent is too old to take new keys over the link, and another host had those that it has; `postern vm "
             "rekey` makes a bundle with new ones"_kj);
      }));
}

void Hub::bootSeen(const Uint128& id) {
  if (isZero(id)) return;
  KJ_IF_MAYBE (known, bootId) {
    if (!(*known == id)) tell(EventKind::BOOTED, "the guest has booted since it was last here"_kj);
  }
  bootId = id;
}

// What a guest says ------------------------------------------------------------------------------------------------

void Hub::heartbeat(GuestEnd& guest, Report report) {
  KJ_IF_MAYBE (current, primary) {
    if (current->get() != &guest) return;
  } else {
    return;
  }
  heartbeatAt = timer().now();
  report.session = sessions;
  report.heartbeats = ++heartbeats;
  observer.heartbeat(report);
  Uint128 boot{report.bootIdHigh, report.bootIdLow};
  for (auto i = departures.begin(); i != departures.end();) {
    auto departure = i++;
    if (!departure->reboot || isZero(boot)) continue;
    if (!(departure->bootId == boot)) {
      departure->fulfiller->fulfill({false, kj::str("a heartbeat with a new boot id has come")});
    } else if (departure->sessionEnded) {
      departure->fulfiller->fulfill({true, kj::str("the guest came back without having restarted")});
    } else {
      continue;
    }
    departures.erase(departure);
  }
}

void Hub::goodbye(GuestEnd&, postern::schema::Goodbye why) {
  goodbyeSaid = why;
  tell(EventKind::GOODBYE, describe(why), static_cast<uint16_t>(why));
}

void Hub::ended(GuestEnd& guest, const SessionEnd& how) {
  KJ_IF_MAYBE (current, enrolling) {
    if (current->get() == &guest) {
      tell(EventKind::REFUSED, kj::str("an enrolment was not finished: ", postern::describe(how)));
      tasks.add(kj::evalLater([end = kj::mv(*current)]() {}));
      enrolling = nullptr;
      return;
    }
  }
  KJ_IF_MAYBE (current, primary) {
    if (current->get() != &guest) return;
    auto end = kj::mv(*current);
    primary = nullptr;
    tell(EventKind::LOST, postern::describe(how), static_cast<uint16_t>(lossOf(how)));
    observer.stateChanged();
    departed(*end);
    tasks.add(kj::evalLater([end = kj::mv(end)]() {}));
  }
}

void Hub::departed(GuestEnd& guest) {
  bool onPurpose = guest.saidGoodbye() != nullptr || guest.isStopping();
  for (auto i = departures.begin(); i != departures.end();) {
    auto departure = i++;
    departure->sessionEnded = true;
    if (departure->reboot || !onPurpose) continue;
    departure->fulfiller->fulfill(
        {false, kj::str(guest.saidGoodbye() != nullptr ? "it said goodbye and the link is silent"
                                                       : "it was stopping, and the link has ended")});
    departures.erase(departure);
  }
}

void Hub::misfortune(kj::StringPtr text) {
  // A guest can cause as many as it likes; one a second tells that it does.
  KJ_IF_MAYBE (last, misfortuneAt) {
    if (timer().now() - *last < MISFORTUNE_SPACING) return;
  }
  misfortuneAt = timer().now();
  tell(EventKind::TROUBLE, printable(text, 200));
}

kj::Promise<Hub::Gone> Hub::addDeparture(bool reboot) {
  auto waiting = kj::newPromiseAndFulfiller<Gone>();
  departures.remove_if([](Departure& departure) { return !departure.fulfiller->isWaiting(); });
  departures.push_back(Departure{reboot, bootId.orDefault(Uint128()), primary == nullptr, kj::mv(waiting.fulfiller)});
  return kj::mv(waiting.promise);
}

kj::Promise<Hub::Gone> Hub::whenGone() {
  return addDeparture(false);
}
kj::Promise<Hub::Gone> Hub::whenRebooted() {
  return addDeparture(true);
}

kj::Promise<void> Hub::close() {
  KJ_IF_MAYBE (guest, primary) return (*guest)->session().close(CloseCode::GOODBYE);
  return kj::READY_NOW;
}

void Hub::taskFailed(kj::Exception&& exception) {
  tell(EventKind::TROUBLE, printable(exception.getDescription(), 200));
}

}  // namespace postern::host
