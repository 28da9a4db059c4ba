#pragma once
// Vm: one VM, as posternd sees it: its record, its session process, its way to connect, its health and its slot on the
// status board. posternd reads no byte of the guest: it passes connections on, unread, and takes from the session
// process bounded claims about this VM.
//
// By endpoint: unix and hybrid have a listener of their own; serial is connected to, again and again; vsock comes in at
// the daemon's listeners, which find the VM by its CID (visit()); libvirt is what libvirt says: a connection like
// serial's, or a CID.
// One loop; owned by the Daemon.

#include <kj/async-io.h>

#include "host/board/board-writer.h"
#include "host/config/config.h"
#include "host/daemon/channels.h"
#include "host/daemon/events.h"
#include "host/daemon/session-client.h"
#include "host/daemon/vm-metrics.h"
#include "host/health/health.h"
#include "host/libvirt/door.h"
#include "host/qmp/qmp-watch.h"
#include "host/registry/registry.h"
#include "protocol/random.h"
#include "transport/doorkeeper.h"

namespace postern::host {

class Vm final : public SessionClient::Handler,
                 public QmpWatch::Handler,
                 public ChannelVm,
                 private kj::TaskSet::ErrorHandler {
 public:
  class Handler {
   public:
    // A session process said so, of a grant that posternd gave.
    virtual void operation(Vm& vm, const OperationReport& report) = 0;
    // A connection from its address was closed unread.
    virtual void turnedAway(const TurnedAway& peer) = 0;
    // Its grants have nobody who would honour them.
    virtual void sessionLost(Vm& vm) = 0;
    // The guest was put back to an earlier state.
    virtual void guestQuarantined(Vm& vm) = 0;
    // A session process has come, and knows no numbers of this policy.
    virtual void limitsWanted(Vm& vm) = 0;
    virtual void event(Vm& vm, kj::StringPtr kind, kj::String text) = 0;
    // vsock() has another value.
    virtual void vsockChanged(Vm& vm) = 0;
  };
  struct Environment {
    kj::UnixEventPort& port;
    kj::LowLevelAsyncIoProvider& provider;
    kj::StringPtr sessionProgram;
    kj::StringPtr sessionBuild;  // its buildIdOf() when this posternd began
    kj::StringPtr sessionFolder;
    Registry& registry;
    Admission& admission;
    BoardWriter& board;
    Random& random;
    Handler& handler;
    const Config& config;
    const schema::Rollback& rollback;  // as it counts now
    Channels& channels;
    const Decisions& decisions;
    const LibvirtDoor& libvirt;
  };

  // Starts its session process and its links, unless it is moved to another host: then there is nothing but what is
  // shown. Everything outlives this.
  Vm(VmRecord record, const Environment& environment);
  ~Vm() noexcept(false);
  KJ_DISALLOW_COPY(Vm);

  const VmRecord& record() const override { return vmRecord; }
  // Where it comes in by vsock, if it does: its endpoint, or what libvirt says of its domain now.
  kj::Maybe<VsockEndpoint> vsock() const;
  // Another transport, tags or QMP socket.
  void change(VmRecord record);

  SessionClient& session() { return client; }
  const Verdict& verdict() const { return lastVerdict; }
  // The guest was put back to an earlier state, and nothing but heartbeats passes until its next session.
  bool isQuarantined() const override { return quarantined; }
  kj::Maybe<kj::TimePoint> lastHeartbeat() const { return heartbeatAt; }
  kj::Maybe<const Report&> lastReport() const {
    return report.map([](const Report& r) -> const Report& { return r; });
  }
  bool isConnected() const { return linkUp; }
  bool isEnrolled() const { return enrolled; }
  bool hasSessionProcess() const { return sessionPid != 0; }
  const VmMetrics& metrics() const { return counted; }
  void describe(schema::Vm::Builder vm) const;
  void describe(schema::Port::Builder port) const;
  BoardPort shownPort() const;
  void describe(schema::VmStatus::Builder status, kj::TimePoint now) const;

  // ChannelVm.
  bool isAttached() const override { return client.isAttached(); }
  bool isReachable() const override { return client.isAttached() && linkUp; }
  PortCounters& port() override { return portCounters; }
  void showPort() override;
  kj::Promise<schema::ServeOutcome> serve(Serving serving) override { return client.serve(kj::mv(serving)); }
  kj::Promise<void> cutChannels(kj::ArrayPtr<const uint64_t> ids) override { return client.cutChannels(ids); }
  void restartSession(kj::StringPtr why) override { client.restart(why); }

  // At its vsock port.
  void cannotListen(kj::StringPtr why) { linkTrouble = kj::str(why); }
  // A connection from this VM's address that was let in.
  void visit(Visitor visitor);

  // What time alone changes; to be called a few times a second.
  void tick(kj::TimePoint now);

  kj::Maybe<QmpWatch&> qmp();

  // Ends the session process; the Vm may be destroyed then.
  kj::Promise<void> stop();

 private:
  VmRecord vmRecord;
  const Environment environment;
  kj::Timer& timer;
  board::Transport transport = board::TRANSPORT_NONE;
  Health health;
  Verdict lastVerdict;
  kj::Maybe<uint32_t> slot;
  PortCounters portCounters;
  kj::Maybe<Report> report;
  kj::Maybe<kj::TimePoint> heartbeatAt;
  uint64_t endedSession = 0;  // reports of it, or of earlier ones, come too late
  bool linkUp = false;
  bool quarantined = false;
  uint64_t quarantinedSession = 0;  // the number of the session that is
  kj::Maybe<uint32_t> libvirtCid;   // of the domain that runs now
  kj::String linkTrouble;           // the last; empty: none since it was connected, or listened
  kj::String qmpTrouble;            // the same
  bool keepsSerial = true;          // false: the pipe that the session holds is of another transport than the record's
  pid_t sessionPid = 0;
  bool enrolled = false;
  bool offerPending = false;
  bool inheritedKeys = false;
  kj::String hostFingerprint, guestFingerprint, peer;
  uint64_t sessions = 0;
  VmMetrics counted;

  // Null until the session is attached, and while a listener could not be made.
  kj::Maybe<kj::Own<Listener>> listener;
  kj::Maybe<kj::Own<Doorkeeper>> doorkeeper;
  kj::Maybe<kj::Promise<void>> linking;
  kj::Maybe<kj::Own<QmpWatch>> qmpWatch;
  kj::TaskSet tasks;
  SessionClient client;

  void startLinks();
  kj::Promise<void> listen();
  kj::Promise<void> receiveAll();
  kj::Promise<void> keepSerial(kj::Duration pause);
  kj::Promise<bool> connectSerial();
  kj::Promise<bool> connectLibvirt(kj::StringPtr domain);
  void linkFailed(kj::StringPtr why);
  void startQmp();
  kj::Promise<Connected> connectMonitor(kj::StringPtr domain);
  void publish();
  void healthMayHaveChanged(kj::TimePoint now);
  void take(schema::SessionState::Reader state);
  void recall(schema::SessionState::Reader state);
  kj::TimePoint now() const { return timer.now(); }

  // SessionClient::Handler.
  void sessionAttached(schema::SessionState::Reader state, pid_t pid, ChannelClaims channels) override;
  void sessionState(schema::SessionState::Reader state) override;
  void sessionEvent(schema::SessionObserver::Kind kind, kj::StringPtr text, uint16_t code, uint64_t session) override;
  void sessionReport(const Report& report) override;
  void sessionOperation(const OperationReport& report) override;
  void sessionPings(const PingReport& report) override { counted.pinged(report); }
  void sessionGone(SessionClient::Departure departure, kj::StringPtr why) override;
  kj::OneOf<kj::AutoCloseFd, kj::String> openState() override;
  schema::Rollback rollback() override;
  kj::Promise<kj::Maybe<kj::Own<Prospect>>> sessionAsks(kj::Maybe<ChannelQuestion> question) override;
  void sessionBegins(kj::Own<Prospect> prospect, schema::SessionObserver::ConnectResults::Builder answer) override;
  void sessionOpened(uint64_t channel, uint64_t grant, kj::StringPtr service) override;
  void sessionRefused(const ChannelRefusal& refusal) override;
  void sessionClosed(const ChannelClosing& closing) override;
  void sessionTraffic(PortClaim claim) override;

  // QmpWatch::Handler.
  void qmpEvent(QmpWatch::Event event) override;
  void qmpConnected() override;
  void qmpLost(kj::StringPtr why) override;

  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::host
