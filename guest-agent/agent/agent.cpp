#include "guest-agent/agent/agent.h"

#include "guest-agent/log/log.h"
#include "protocol/limits.h"

namespace postern::guest {

namespace {

// A session that lived as long as this was a good one: what comes after it begins with short waits again.
constexpr auto GOOD_SESSION = 10 * kj::SECONDS;
// A renewal that did not work is tried again after this; the old session works on.
constexpr auto RENEWAL_RETRY = 15 * kj::SECONDS;

}  // namespace

Agent::Agent(const Parts& parts)
    : timer(parts.timer),
      broker(parts.broker),
      pairing(parts.pairing),
      heartbeats(parts.heartbeats),
      services(parts.services),
      consumers(parts.consumers),
      tidying(timer),
      pool(tidying),
      environment{timer, pool, parts.random},
      links(broker, parts.port, timer, parts.random, scratch),
      entrance(links, pairing, Confirmation{0, 0, parts.bootId, parts.instance, nullptr}, environment),
      connectBackoff(kj::min(limits::CONNECT_RETRY_FIRST, parts.retry), parts.retry, parts.random),
      refusedBackoff(newRefusedBackoff(parts.random)),
      liveSince(timer.now()),
      tasks(*this) {}

Agent::~Agent() noexcept(false) {}

kj::Promise<void> Agent::run() {
  auto cutShort = interrupted().then([this]() { return makePlace(); });
  return round()
      .exclusiveJoin(kj::mv(cutShort))
      .then([this](Pace pace) {
        live = nullptr;
        return pause(pace);
      })
      .then([this]() { return run(); });
}

// A session is closed for the one that follows.
kj::Promise<Agent::Pace> Agent::makePlace() {
  kj::Promise<void> closed = kj::READY_NOW;
  KJ_IF_MAYBE (session, live) closed = (*session)->close(CloseCode::REPLACED);
  return closed.then([]() { return Pace::AT_ONCE; });
}

kj::Promise<Agent::Pace> Agent::round() {
  auto attempts = pairing.attempts();
  if (attempts.empty()) {
    tell("no-bundle",
         kj::str(
             "this guest is not enrolled and has no bundle; on the host run `postern enroll`, and give the bundle to "
             "`postern-agent join`"));
    return kj::NEVER_DONE;
  }
  return tryFrom(kj::mv(attempts), 0, Pace::NOBODY);
}

kj::Promise<Agent::Pace> Agent::tryFrom(kj::Vector<Pairing::Attempt> attempts, size_t index, Pace pace) {
  if (index == attempts.size()) return pace;
  auto attempt = attempts[index];
  return entrance.enter(attempt).then([this, index, attempts = kj::mv(attempts)](Entry entry) mutable {
    if (entry.is<Entered>()) {
      begin(kj::mv(entry.get<Entered>().session));
      return serve();
    }
    if (entry.is<NoLink>()) {
      tell("no-link", kj::mv(entry.get<NoLink>().text));
      // The next keys would find nobody either.
      return kj::Promise<Pace>(Pace::NOBODY);
    }
    if (entry.is<Stuck>()) {
      tell("state-file", kj::mv(entry.get<Stuck>().text));
      return kj::Promise<Pace>(Pace::REFUSED);
    }
    bool isEnrolment = attempts[index].way == Pairing::Way::ENROLMENT;
    auto why = kj::mv(entry.get<Refused>().text);
    if (isEnrolment) {
      tell("enrolment-refused", kj::str("the host did not take the bundle (", why,
                                        "); is it expired, used by another guest, or for another VM?"));
    } else {
      tell("session-refused",
           kj::str("the host did not take this guest's keys (", why, "); was this VM removed or enrolled anew there?"));
    }
    // A bundle that waited for the place of the one that was just refused.
    if (attempts[index].slot == Pairing::Slot::SUCCESSOR && pairing.hasUntried()) return round();
    return tryFrom(kj::mv(attempts), index + 1, Pace::REFUSED);
  });
}

void Agent::begin(kj::Own<Session> session) {
  live = nullptr;
  auto server = newGuestServer(services, *this, *session);
  live = kj::heap<LiveSession>(kj::mv(session), kj::mv(server), heartbeats, consumers, timer);
  liveSince = timer.now();
  renewing = false;
  told.clear();
  kj::String vm;
  KJ_IF_MAYBE (id, pairing.vm()) vm = toString(*id);
  logInfo("connected", kj::str("session with the host, as VM ", vm));
  if (pairing.isUnsettled()) settle();
  if (!startIsOver) releaseStartupPages();
  startIsOver = true;
}

// What follows from an enrolment beside keys; again with the next session if this process dies before it is done.
void Agent::settle() {
  logInfo("enrolled", "this guest and its host have pinned each other's keys");
  tasks.add(broker.enrolled().then([this](bool adopted) {
    if (adopted) logInfo("grants-adopted", "the bundle's grants are this guest's policy now");
    KJ_IF_MAYBE (error, pairing.settled()) logError("state-file", error->text);
  }));
}

kj::Promise<Agent::Pace> Agent::serve() {
  auto over = whenOver().then([this](SessionEnd end) {
    logWarning("disconnected", kj::str("the session with the host is over: ", describe(end)));
    return Next(paceAfter(end));
  });
  auto renewed = renewWhenDue();
  return over.exclusiveJoin(kj::mv(renewed)).then([this](Next next) -> kj::Promise<Pace> {
    if (next.is<Pace>()) return next.get<Pace>();
    begin(kj::mv(next.get<kj::Own<Session>>()));
    return serve();
  });
}

// The session's end, unless it is that the host has put the renewed one in its place, which is about to be known here.
kj::Promise<SessionEnd> Agent::whenOver() {
  return KJ_ASSERT_NONNULL(live)->onEnd().then([this](SessionEnd end) -> kj::Promise<SessionEnd> {
    bool replaced = false;
    KJ_IF_MAYBE (code, end.code) replaced = *code == CloseCode::REPLACED && end.reason == EndReason::CLOSED_BY_PEER;
    if (renewing && replaced) return kj::NEVER_DONE;
    return end;
  });
}

// Fresh keys, and a successor that has not found its place: the host was just restarting when it was tried.
kj::Promise<Agent::Next> Agent::renewWhenDue() {
  auto due = KJ_ASSERT_NONNULL(live)->onRenewalDue();
  if (pairing.attempts().front().slot == Pairing::Slot::SUCCESSOR) {
    due = due.exclusiveJoin(timer.afterDelay(RENEWAL_RETRY));
  }
  return due.then([this]() { return renew(); });
}

// The next session, made beside the old one; or, where there cannot be two links, the old one is closed to make place.
kj::Promise<Agent::Next> Agent::renew() {
  logInfo("renewal", "a new handshake is due");
  if (!links.canOverlap()) return makePlace().then([](Pace pace) { return Next(pace); });
  renewing = true;
  return renewBy(pairing.attempts(), 0);
}

kj::Promise<Agent::Next> Agent::renewBy(kj::Vector<Pairing::Attempt> attempts, size_t index) {
  auto attempt = attempts[index];
  return entrance.enter(attempt).then(
      [this, index, attempts = kj::mv(attempts)](Entry entry) mutable -> kj::Promise<Next> {
        if (entry.is<Entered>()) return Next(kj::mv(entry.get<Entered>().session));
        // The current identity has a session; there is nothing to try it for.
        bool more = attempts[index].slot == Pairing::Slot::SUCCESSOR && index + 1 < attempts.size() &&
                    attempts[index + 1].slot == Pairing::Slot::SUCCESSOR;
        if (more) return renewBy(kj::mv(attempts), index + 1);
        renewing = false;
        if (KJ_ASSERT_NONNULL(live)->isOver()) return Next(Pace::AT_ONCE);
        logWarning("renewal-failed", "no new session; the old one works on");
        return timer.afterDelay(RENEWAL_RETRY).then([this]() { return renewWhenDue(); });
      });
}

Agent::Pace Agent::paceAfter(const SessionEnd& end) {
  if (timer.now() - liveSince >= GOOD_SESSION) {
    connectBackoff.reset();
    refusedBackoff.reset();
  }
  switch (end.reason) {
    case EndReason::CLOSED_BY_PEER:
      KJ_IF_MAYBE (code, end.code) return *code == CloseCode::GOODBYE ? Pace::NOBODY : Pace::REFUSED;
      return Pace::REFUSED;
    case EndReason::PROTOCOL_ERROR:
      return end.detail == HEARTBEAT_LOST ? Pace::NOBODY : Pace::REFUSED;
    case EndReason::BAD_FRAME:
    case EndReason::BAD_RECORD:
    case EndReason::FAILED_HERE:
      return Pace::REFUSED;
    case EndReason::CLOSED_HERE:
      return Pace::AT_ONCE;
    case EndReason::LINK_ENDED:
    case EndReason::PEER_RESTARTED:
    case EndReason::PING_TIMEOUT:
      return Pace::NOBODY;
  }
  KJ_UNREACHABLE;
}

kj::Promise<void> Agent::pause(Pace pace) {
  if (pace == Pace::AT_ONCE) return kj::READY_NOW;
  auto wait = timer.afterDelay(pace == Pace::NOBODY ? connectBackoff.next() : refusedBackoff.next());
  return wait.exclusiveJoin(interrupted());
}

kj::Promise<void> Agent::interrupted() {
  auto pair = kj::newPromiseAndFulfiller<void>();
  interruption = kj::mv(pair.fulfiller);
  return kj::mv(pair.promise);
}

void Agent::keysChanged() {
  told.clear();
  KJ_IF_MAYBE (i, interruption) (*i)->fulfill();
}

kj::Maybe<Rekeying::NotDone> Agent::rekey(const HostPublicKey& host, EnrolmentToken token) {
  auto begun = pairing.rekey(host, kj::mv(token));
  KJ_IF_MAYBE (error, begun.tryGet<VaultError>()) {
    logError("state-file", error->text);
    return NotDone{schema::Refusal::Reason::FAILED, kj::str("the new keys could not be stored")};
  }
  if (!begun.get<bool>()) return NotDone{schema::Refusal::Reason::BUSY, kj::str("a rekeying is being finished")};
  logInfo("rekeying", "the host asks for new keys");
  // The answer goes first.
  tasks.add(kj::evalLast([this]() { keysChanged(); }));
  return nullptr;
}

void Agent::guestStops(schema::Goodbye why) {
  KJ_IF_MAYBE (session, live) tasks.add((*session)->sayGoodbye(why));
}

kj::Promise<void> Agent::stop() {
  KJ_IF_MAYBE (session, live) return (*session)->stop(schema::Goodbye::AGENT_STOPPED);
  return kj::READY_NOW;
}

void Agent::tell(kj::StringPtr event, kj::String text) {
  auto& last = told.findOrCreate(event, [&]() { return Told::Entry{event, kj::String()}; });
  if (text == last) return;
  logWarning(event, text);
  last = kj::mv(text);
}

void Agent::taskFailed(kj::Exception&& exception) {
  // The broker is gone (run() fails as well), or the session is.
  logWarning("not-done", exception.getDescription());
}

}  // namespace postern::guest
