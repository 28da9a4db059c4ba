#pragma once
// Hub: one VM, as its session process sees it: its keys, the links that posternd hands in, the one guest that is
// connected, and who waits for it. All that a guest can do to the host ends here or further out.
//
// Guarantees:
//  - at most one guest is connected. A new primary replaces the old one after its own CONFIRM has decrypted; the old
//  one
//    hears REPLACED. Two agents with one identity, which replace each other more than MAX_REPLACEMENTS times a minute,
//    are noticed: the one that is connected stays, the other is refused for DUPLICATE_REFUSAL;
//  - a session counter that goes back is noticed, and refused if so configured;
//  - an enrolment goes by VmKeys' order, and is over by ENROLMENT_DEADLINE or closed;
//  - a guest whose keys another host had before is asked for new ones as soon as it is here, and each time it comes
//  until
//    it has them;
//  - a disk that fails refuses guests whose step it could not store, and says so; who is connected stays.
// One loop. Does not log: it tells its Observer.

#include <kj/async-unix.h>
#include <kj/timer.h>

#include <deque>
#include <list>

#include "host/session/guest-end.h"
#include "host/session/session-control.capnp.h"
#include "host/session/vm-keys.h"
#include "protocol/read-scratch.h"
#include "transport/reception.h"

namespace postern::host {

constexpr unsigned MAX_REPLACEMENTS = 3;
constexpr auto REPLACEMENT_WINDOW = 1 * kj::MINUTES;
constexpr auto DUPLICATE_REFUSAL = 60 * kj::SECONDS;
// From ACCEPT to COMMIT of an enrolment: two round trips and two writes of the guest's disk.
constexpr auto ENROLMENT_DEADLINE = 10 * kj::SECONDS;
// A serial link has no listen queue that would limit failed handshakes: the next one waits this long.
constexpr auto SERIAL_REFUSAL_PAUSE = 200 * kj::MILLISECONDS;
// Between two exceptions that a guest has caused and that are told.
constexpr auto MISFORTUNE_SPACING = 1 * kj::SECONDS;

class Hub final : public GuestEnd::Handler, private kj::TaskSet::ErrorHandler {
 public:
  using EventKind = schema::SessionObserver::Kind;

  // Called from the loop; must not destroy the Hub.
  class Observer {
   public:
    virtual void stateChanged() = 0;
    // `text` is printable; `code` as in session-control.capnp.
    virtual void event(EventKind kind, kj::StringPtr text, uint16_t code) = 0;
    virtual void heartbeat(const Report& report) = 0;
    // As GuestEnd::Handler's.
    virtual kj::Promise<bool> connect(GuestEnd& guest, kj::Maybe<ServiceQuestion> question) = 0;
  };

  struct Environment {
    kj::UnixEventPort& port;
    ReadScratch& scratch;
    SessionEnvironment session;
  };

  // Everything outlives this.
  Hub(VmKeys& keys, Observer& observer, const Environment& environment);
  ~Hub() noexcept(false);
  KJ_DISALLOW_COPY(Hub);

  void setRollback(schema::Rollback rule) { rollback = rule; }

  // A connection of this VM's channel, from which nothing was read. Streams: resolves when a guest has proved itself
  // (true) or was closed; serial: when the pipe has ended, or another one has taken its place.
  struct Outcome {
    bool proved;
    kj::String reason;
  };
  // `peer` is what posternd knows of its other end, for people.
  kj::Promise<Outcome> link(Connection connection, kj::String peer);

  // When no serial pipe is in use.
  kj::Promise<void> whenSerialFree();

  VmKeys& vmKeys() { return keys; }
  // A bundle was issued: the offer is out from now on until it is used or its lifetime is over, which is told, too.
  void offerIssued(kj::Duration lifetime);
  kj::Maybe<GuestEnd&> connected();
  uint64_t sessionsMade() const { return sessions; }
  // The last heartbeat's time; null: there was none since this process began.
  kj::Maybe<kj::TimePoint> lastHeartbeat() const { return heartbeatAt; }
  // Of the guest that was seated last, if it said one.
  kj::Maybe<postern::schema::Goodbye> lastGoodbye() const { return goodbyeSaid; }
  kj::Timer& timer() { return environment.session.timer; }
  kj::UnixEventPort& port() { return environment.port; }

  // When the guest that is connected now has gone on purpose: it said goodbye, or was stopping, and its session is
  // over.
  struct Gone {
    bool failed;
    kj::String how;  // for a person
  };
  kj::Promise<Gone> whenGone();
  // When a heartbeat with another boot id than the last one's has come. `failed` if the guest comes back with the old
  // one after its session has ended.
  kj::Promise<Gone> whenRebooted();

  // For the event log.
  void tellPowerStep(kj::StringPtr step) { tell(EventKind::POWER, step); }

  // Says GOODBYE to the guest and ends its session.
  kj::Promise<void> close();

 private:
  struct Serial;
  struct Departure {
    bool reboot;
    Uint128 bootId;
    bool sessionEnded = false;
    kj::Own<kj::PromiseFulfiller<Gone>> fulfiller;
  };

  VmKeys& keys;
  Observer& observer;
  const Environment environment;
  schema::Rollback rollback = schema::Rollback::ALLOW;

  kj::Maybe<kj::Own<GuestEnd>> primary;
  kj::Maybe<kj::Own<GuestEnd>> enrolling;
  uint64_t sessions = 0;
  uint64_t heartbeats = 0;
  kj::Maybe<kj::TimePoint> heartbeatAt;
  kj::Maybe<Uint128> bootId;
  kj::Maybe<postern::schema::Goodbye> goodbyeSaid;
  unsigned handshakes = 0;

  kj::Maybe<kj::TimePoint> misfortuneAt;
  std::deque<kj::TimePoint> replacements;
  struct Duplicate {
    Uint128 instance;
    kj::TimePoint until;
  };
  kj::Maybe<Duplicate> duplicate;

  std::list<Departure> departures;
  kj::Maybe<kj::Own<Serial>> serial;
  kj::Promise<void> offerExpiry = nullptr;
  kj::TaskSet tasks;

  kj::Promise<Outcome> linkStream(Connection connection, kj::String peer);
  kj::Promise<Outcome> linkSerial(Connection connection);
  kj::Promise<void> serveSerial(Serial& serial);

  // Resolves when its link is free for the next.
  // `offer`: the one that was out when its handshake began.
  kj::Promise<void> arrived(kj::Own<IncomingSession> guest, kj::String peer, uint64_t offer);
  kj::Promise<void> arrivedToEnrol(kj::Own<IncomingSession> guest, kj::String peer, uint64_t offer);
  void committed();
  bool isDuplicate(const Confirmation& confirmation);
  kj::Promise<void> seat(kj::Own<GuestEnd> guest);
  void rekeyIfInherited(GuestEnd& guest);
  using Refused = schema::SessionObserver::Refused;
  kj::Promise<void> refuse(kj::Own<IncomingSession> guest, CloseCode code, kj::StringPtr why,
                           Refused reason = Refused::OTHER);
  void tell(EventKind kind, kj::StringPtr text, uint16_t code = 0) { observer.event(kind, text, code); }
  void handshakeOver();
  void reportFailure(const EstablishFailure& failure);
  void diskFailed(StateFileError error);
  void departed(GuestEnd& guest);
  void bootSeen(const Uint128& id);
  kj::Promise<Gone> addDeparture(bool reboot);

  // GuestEnd::Handler.
  void heartbeat(GuestEnd& guest, Report report) override;
  void goodbye(GuestEnd& guest, postern::schema::Goodbye why) override;
  void ended(GuestEnd& guest, const SessionEnd& how) override;
  void misfortune(kj::StringPtr text) override;
  kj::Promise<bool> connect(GuestEnd& guest, kj::Maybe<ServiceQuestion> question) override {
    return observer.connect(guest, kj::mv(question));
  }
  uint32_t heartbeatMilliseconds() override { return DEFAULT_HEARTBEAT_MILLISECONDS; }

  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::host
