#pragma once
// SessionClient: posternd's end of one VM's session process, and what keeps that process there.
//
// Finds the process that an earlier posternd left, or starts one; attaches; and when it is gone, tells its handler and
// starts another: at once after one that lived, later and later (to RESTART_MAX) after ones that did not. What the
// process says is a claim about its one VM: numbers and text are bounded before the handler sees them, and so is how
// often it says something: above TOLD_PER_SECOND it waits for its answers, and of reports it gets some
// MAX_REPORTS_AT_ONCE in REPORT_PAUSE through. What it says of channels (CHANNEL_TOLD_PER_SECOND) and what else it says
// do not hold each other up.
//
// A process that hangs is ended and replaced like one that died: after SILENCE without a report it is asked whether it
// lives, and has ALIVE_DEADLINE to answer. One whose guest sends heartbeats is never asked.
//
// A process that an earlier posternd left may be of another build than `program` is now. It goes on as it is until
// somebody asks it to retire().
//
// Destroying it leaves the process running: a session outlives its posternd. stop() ends it. One loop.

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/refcount.h>

#include <list>

#include "host/daemon/call-bucket.h"
#include "host/daemon/channel-claims.h"
#include "host/daemon/channel-vm.h"
#include "host/daemon/damper.h"
#include "host/daemon/guest-questions.h"
#include "host/daemon/operation-report.h"
#include "host/daemon/process-watch.h"
#include "host/daemon/session-start.h"
#include "host/local-rpc/local-rpc.h"
#include "host/session/ping-tally.h"
#include "host/session/report.h"
#include "host/session/session-control.capnp.h"
#include "protocol/bundle.h"
#include "transport/close-elsewhere.h"
#include "transport/connection.h"

namespace postern::host {

constexpr auto RESTART_FIRST = 100 * kj::MILLISECONDS;
constexpr auto RESTART_MAX = 2 * kj::SECONDS;
// A process that lived this long was not broken from the start.
constexpr auto LIVED = 5 * kj::SECONDS;
constexpr auto ATTACH_DEADLINE = 5 * kj::SECONDS;
constexpr auto SILENCE = 8 * kj::SECONDS;
constexpr auto ALIVE_DEADLINE = 5 * kj::SECONDS;
constexpr auto TRAFFIC_DEADLINE = 500 * kj::MILLISECONDS;
// From stop() to SIGKILL.
constexpr auto STOP_DEADLINE = 2 * kj::SECONDS;

// What a session process tells of its guest and its callers; one that has more to say is overrun, or taken over.
constexpr unsigned TOLD_PER_SECOND = 100;
constexpr unsigned TOLD_BURST = 400;
// Of channels: twice as many as questions that it lets its guest ask.
constexpr unsigned CHANNEL_TOLD_PER_SECOND = 2'000;
constexpr unsigned CHANNEL_TOLD_BURST = 4'000;
constexpr unsigned MAX_REPORTS_AT_ONCE = 16;
// Shorter than the shortest interval of heartbeats by far.
constexpr auto REPORT_PAUSE = 20 * kj::MILLISECONDS;

class SessionClient final : private kj::TaskSet::ErrorHandler {
 public:
  enum class Departure : uint8_t { UNEXPECTED, RETIRED };
  class Handler {
   public:
    // `channels`: of an earlier posternd.
    virtual void sessionAttached(schema::SessionState::Reader state, pid_t pid, ChannelClaims channels) = 0;
    virtual void sessionState(schema::SessionState::Reader state) = 0;
    virtual void sessionEvent(schema::SessionObserver::Kind kind, kj::StringPtr text, uint16_t code,
                              uint64_t session) = 0;
    virtual void sessionReport(const Report& report) = 0;
    virtual void sessionOperation(const OperationReport& report) = 0;
    virtual void sessionPings(const PingReport& report) = 0;
    virtual void sessionGone(Departure departure, kj::StringPtr why) = 0;
    // For the new process: the VM's state file, or why there is none.
    virtual kj::OneOf<kj::AutoCloseFd, kj::String> openState() = 0;
    virtual schema::Rollback rollback() = 0;

    // Of channels. Null: its names are none. The promise is dropped when the process is gone.
    using Prospect = GuestQuestions::Prospect;
    virtual kj::Promise<kj::Maybe<kj::Own<Prospect>>> sessionAsks(kj::Maybe<ChannelQuestion> question) = 0;
    virtual void sessionBegins(kj::Own<Prospect> prospect, schema::SessionObserver::ConnectResults::Builder answer) = 0;
    virtual void sessionOpened(uint64_t channel, uint64_t grant, kj::StringPtr service) = 0;
    virtual void sessionRefused(const ChannelRefusal& refusal) = 0;
    virtual void sessionClosed(const ChannelClosing& closing) = 0;
    virtual void sessionTraffic(PortClaim claim) = 0;
  };

  struct Environment {
    kj::UnixEventPort& port;
    kj::LowLevelAsyncIoProvider& provider;
    kj::StringPtr program;        // path of postern-session
    kj::StringPtr build;          // its buildIdOf() when this posternd began; empty: not known, and none is outdated
    kj::StringPtr sessionFolder;  // for its socket
  };

  // Starts at once. Everything outlives this.
  SessionClient(kj::StringPtr vmName, const VmId& vm, Handler& handler, const Environment& environment);
  ~SessionClient() noexcept(false);
  KJ_DISALLOW_COPY(SessionClient);

  bool isAttached() const { return control != nullptr; }
  // When it is attached, or after `atMost`.
  kj::Promise<void> whenAttached(kj::Duration atMost);

  struct LinkResult {
    bool proved;
    kj::String reason;
  };
  // Fails if the process goes away meanwhile, or is not attached.
  kj::Promise<LinkResult> link(Connection connection);
  // Serial: when the process holds no pipe, of an earlier posternd's connecting perhaps. Fails like link().
  kj::Promise<void> whenSerialFree();
  // What the handler says now of rollback() counts from now on, if it is attached.
  void configure();
  kj::Promise<void> introduce(kj::AutoCloseFd socket, kj::Function<void(schema::Grant::Builder)> fill);
  // Another VM's channel. Fails like link().
  kj::Promise<schema::ServeOutcome> serve(ChannelVm::Serving serving);
  using SetLimits = schema::SessionControl::SetLimitsParams::Builder;
  // If it is attached.
  void setLimits(kj::FunctionParam<void(SetLimits)> fill);
  kj::Promise<void> cutChannels(kj::ArrayPtr<const uint64_t> ids);
  // Empty if the process does not say within TRAFFIC_DEADLINE.
  kj::Promise<LiveTraffic> channelTraffic();
  // Ends the process; another is started.
  void restart(kj::StringPtr why);
  // Of another build than this posternd would start.
  bool isOutdated() const { return isAttached() && outdated && !retiring; }
  // If it is attached: asks the process to end without a goodbye to its guest, which it does if nothing is under way in
  // it (session-control.capnp). Another is started then, and the guest connects again.
  void retire();

  // Ends the process, by force after STOP_DEADLINE; no other is started. Once.
  kj::Promise<void> stop();

 private:
  class Observer;
  // What an Observer's calls find this by; null once they come too late.
  struct Self final : public kj::Refcounted {
    kj::Maybe<SessionClient&> client;
  };

  const kj::String vmName;
  const VmId vm;
  Handler& handler;
  const Environment environment;
  kj::Timer& timer;
  const kj::String socketPath;

  CallBucket told;
  CallBucket channelsTold;
  Damper startFailures;  // by why
  kj::Own<Self> self;    // of the present connection
  kj::Maybe<kj::Own<LocalRpc>> rpc;
  kj::Maybe<schema::SessionControl::Client> control;  // once attached
  kj::Maybe<kj::Own<ProcessWatch>> process;
  StrangersFd reports;
  kj::Maybe<kj::UnixEventPort::FdObserver> reportObserver;
  kj::TimePoint nextReports;  // not before
  kj::TimePoint lastHeard;    // a report of it, or its answer to alive()
  kj::Duration restartAfter = RESTART_FIRST;
  bool stopping = false;
  bool outdated = false;
  bool retiring = false;                          // asked to, and not declined
  kj::Own<kj::PromiseFulfiller<void>> restarter;  // of the present process
  std::list<kj::Own<kj::PromiseFulfiller<void>>> attachWaiters;
  kj::ForkedPromise<void> lastEnded;  // of the last process that reset() ended
  kj::TaskSet tasks;
  kj::Promise<void> running;

  SessionPlace place() const { return {environment.sessionFolder, vmName, vm}; }
  kj::Promise<void> run();
  kj::Promise<void> runOnce();
  kj::Promise<void> attach(kj::AutoCloseFd socket);
  kj::Promise<kj::Maybe<kj::AutoCloseFd>> connect();
  bool spawn();
  bool startFailed(kj::StringPtr why);
  kj::Promise<void> receiveReports();
  kj::Promise<void> untilHung();
  void reset(kj::StringPtr why);
  kj::Promise<void> endLastStarted();
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::host
