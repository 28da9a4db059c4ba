#pragma once
// SessionProcess: the part of postern-session that speaks with posternd, around the Hub that speaks with the guest.
//
// It outlives posternd: it listens on a socket that it was started with, and the newest posternd that attaches is the
// one it reports to. Only processes of its own user may connect. While no posternd is attached, the guest's heartbeats
// are answered and nothing new is granted; after ABANDONED, what was granted ends, and so does, that long after another
// posternd has come, what it has not granted itself. Channels between VMs and to the host are no grants: the next
// posternd gets a list of them and decides. Events of that time, up to MAX_KEPT_EVENTS, are told to the next posternd,
// which may ask an idle process to make room for one of its own build.
// One loop.

#include <kj/async-io.h>
#include <kj/async-unix.h>

#include <deque>

#include "host/local-rpc/local-rpc.h"
#include "host/session/channels/service-questions.h"
#include "host/session/hub.h"
#include "host/session/ping-tally.h"
#include "host/session/vm-calls.h"

namespace postern::host {

constexpr auto ABANDONED = 60 * kj::SECONDS;
constexpr size_t MAX_KEPT_EVENTS = 64;
// Calls to posternd that it has not answered; above it events are dropped and counted.
constexpr unsigned MAX_UNANSWERED = 256;
// Lines of the audit for single files of copies: fewer than posternd takes of one session (session-client.h), so that
// what else there is to tell finds room.
constexpr unsigned FILE_LINES_PER_SECOND = 50;
constexpr unsigned FILE_LINES_BURST = 100;
// Callers that have a socket at the same time.
constexpr unsigned MAX_CALLERS = 256;

class SessionProcess final : public Hub::Observer, public OperationLog, public kj::TaskSet::ErrorHandler {
 public:
  // `listening`: a listening Unix socket. Everything outlives this.
  SessionProcess(kj::StringPtr vmName, VmKeys& keys, const Hub::Environment& environment,
                 kj::LowLevelAsyncIoProvider& provider, kj::AutoCloseFd listening);
  ~SessionProcess() noexcept(false);
  KJ_DISALLOW_COPY(SessionProcess);

  // Until posternd says stop, an idle process is asked to retire, or end() is called.
  kj::Promise<void> run();
  // Says goodbye to the guest; run() resolves then.
  void end();

 private:
  class Control;
  struct Daemon;
  struct Caller;
  struct KeptEvent {
    Hub::EventKind kind;
    kj::String text;
    uint16_t code;
    uint64_t session;
  };

  const kj::String vmName;
  kj::UnixEventPort& port;
  kj::LowLevelAsyncIoProvider& provider;
  kj::Timer& timer;
  kj::AutoCloseFd listening;
  kj::UnixEventPort::FdObserver listeningObserver;
  PortLimits limits;
  TransferLimits transfers;
  ChannelBook channels;
  ServiceQuestions questions;
  Hub hub;
  TokenBucket fileLines{FILE_LINES_PER_SECOND, FILE_LINES_BURST};

  kj::Maybe<Daemon&> attached;  // owned by its task
  kj::Maybe<kj::Promise<void>> abandonment;
  std::deque<KeptEvent> kept;
  uint64_t eventsDropped = 0;
  unsigned unanswered = 0;
  bool stateIsNews = false;  // posternd has not been told yet
  bool tellingState = false;
  PingTally pings;  // not told yet
  bool pingsWait = false;
  unsigned callerCount = 0;
  kj::Own<kj::TaskSet> callers;
  kj::Vector<kj::Promise<void>> earlierCallers;  // whom an earlier posternd introduced
  kj::Own<kj::PromiseFulfiller<void>> endFulfiller;
  kj::Promise<void> ended;
  kj::TaskSet tasks;

  kj::Promise<void> acceptDaemons();
  void serveDaemon(kj::AutoCloseFd socket);
  void attachedNow(Daemon& daemon);
  void daemonLost(Daemon& daemon);
  void abandoned();
  bool isIdle() const { return callerCount == 0 && channels.openChannels() == 0; }
  bool mayRetire() const { return callerCount == 0 && channels.isSettled() && questions.openQuestions() == 0; }
  void answered();
  void fill(schema::SessionState::Builder state);
  void send(const KeptEvent& event);
  void introduce(kj::AutoCloseFd socket, schema::Grant::Reader grant, PassedWithGrant passed);
  void tellState();
  void tellPings();
  kj::Maybe<kj::Promise<ServiceQuestions::Answer>> ask(uint64_t id, kj::StringPtr to, kj::StringPtr service,
                                                       ServiceQuestions::Entrance::Client entrance);

  void stateChanged() override;
  void event(Hub::EventKind kind, kj::StringPtr text, uint16_t code) override;
  void heartbeat(const Report& report) override;
  kj::Promise<bool> connect(GuestEnd& guest, kj::Maybe<ServiceQuestion> question) override {
    return questions.connect(guest, kj::mv(question));
  }
  bool operation(const OperationRecord& record) override;
  void pinged(kj::Maybe<kj::Duration> took) override;
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::host
