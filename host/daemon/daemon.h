#pragma once
// Daemon: posternd. Owns the registry, the policy, the audit log, the status board, the VMs, their channels and the
// control socket's callers; decides, starts, introduces and cuts. It reads no byte of a guest, and moves none.
//
// What it writes when it decides: an audit line for every decision and operation, an event for whoever listens, a log
// line for what its administrator has to know. One loop.

#include <kj/async-io.h>

#include "host/audit/audit-log.h"
#include "host/board/board-writer.h"
#include "host/config/config.h"
#include "host/daemon/channels.h"
#include "host/daemon/daemon-metrics.h"
#include "host/daemon/damper.h"
#include "host/daemon/decisions.h"
#include "host/daemon/limits-in-use.h"
#include "host/daemon/live-grants.h"
#include "host/daemon/local-callers.h"
#include "host/daemon/moves.h"
#include "host/daemon/policy-store.h"
#include "host/daemon/records.h"
#include "host/daemon/session-renewal.h"
#include "host/daemon/vm.h"
#include "host/daemon/vsock-doors.h"
#include "host/paths.h"
#include "host/registry/registry.h"
#include "transport/random.h"

namespace postern::host {

// How often health is looked at for what time alone changes.
constexpr auto TICK = 200 * kj::MILLISECONDS;
// How often rules that expire are looked at beside the moment at which one does: the clock may be set.
constexpr auto EXPIRY_LOOK = 1 * kj::SECONDS;

class Daemon final : private Vm::Handler, private VsockDoors::Handler, private kj::TaskSet::ErrorHandler {
 public:
  struct Parts {
    Config config;
    kj::String sessionProgram;
    kj::Own<Registry> registry;
    kj::Own<AuditLog> audit;
    kj::Maybe<gid_t> group;
  };

  // `paths` and `io` outlive this. Starts every registered VM.
  Daemon(const Paths& paths, Parts parts, kj::AsyncIoContext& io);
  ~Daemon() noexcept(false);
  KJ_DISALLOW_COPY(Daemon);

  // Configuration and policy again; errors are logged, and what was good stays. Cuts what is no longer allowed.
  void reload(kj::StringPtr configPath, Presence presence);
  // Ends all sessions, for a host that stops for good.
  kj::Promise<void> stopSessions();
  // The audit log is whole, and on the disk.
  kj::Promise<void> flush() { return records.auditLog().flush(); }

  // For the control socket -----------------------------------------------------------------------------------------

  kj::Timer& timer() { return time; }
  LocalCallers& localCallers() { return callers; }
  PolicyStore& policy() { return policyStore; }
  const Decisions& decisions() const { return deciding; }
  Records& recording() { return records; }
  Channels& channelDesk() { return channels; }
  Events& eventLog() { return records.eventLog(); }
  const Paths& filePaths() const { return paths; }
  // As it counts: what needs a restart stays.
  const Config& settings() const { return config; }
  DaemonMetrics& metrics() { return counted; }
  const BoardWriter& statusBoard() const { return board; }
  size_t countGrants() const { return grants.size(); }
  kj::Maybe<Vm&> findVm(kj::StringPtr name);
  kj::Vector<Vm*> allVms();
  size_t countVms() const { return vms.size(); }

  // A decision about a caller on the host, to be recorded: who asked what, and what it came to.
  Records::Hindrance recordDecision(const LocalCaller& caller, kj::StringPtr vm, kj::StringPtr call, kj::StringPtr path,
                                    const FileDecision& decided);
  void record(kj::StringPtr who, kj::StringPtr vm, kj::StringPtr call, kj::StringPtr rule, kj::StringPtr outcome) {
    records.record(who, vm, call, rule, outcome);
  }

  // A socket to the VM's session, good for what is granted, for the caller. Fails if that is no longer allowed.
  kj::Promise<StrangersFd> introduce(Vm& vm, kj::Own<const LocalCaller> caller, Grantable granted);
  bool hasRoomFor(uid_t uid) const { return grants.hasRoomFor(uid); }

  kj::Maybe<FileError> addVm(VmRecord record);
  kj::Maybe<FileError> changeVm(VmRecord record);
  kj::Promise<kj::Maybe<FileError>> removeVm(kj::StringPtr name);
  // Moving a VM (moves.h). What comes back of an export is what was sealed, of an import the VM's name.
  Moves& moving() { return moves; }
  kj::Promise<Moves::Outcome<kj::String>> exportVm(kj::StringPtr name, kj::StringPtr to);
  kj::Maybe<Moves::NotDone> cancelExport(kj::StringPtr name);
  struct Imported {
    kj::String name;
    kj::String from;
    kj::String offeredGrants;
    kj::String takenGrants;
  };
  Moves::Outcome<Imported> importVm(const Moves::Arrival& arrival);
  // The VM's port, by hand, kept over restarts; how many channels and connections that has cut.
  kj::OneOf<unsigned, FileError> blockPort(kj::StringPtr name, bool blocked);
  // Its name is not free while what was its is being removed; null: it is.
  kj::Maybe<kj::String> whyNotYet(kj::StringPtr name) const;
  // The promise, which is carried out even if what comes back is dropped.
  template <typename T>
  kj::Promise<T> seeThrough(kj::Promise<T> promise);
  // Policy changed: cuts what it no longer allows, and tells sessions the numbers that count now.
  void policyChanged();

 private:
  const Paths& paths;
  kj::AsyncIoContext& io;
  kj::UnixEventPort& port;
  kj::Timer& time;
  Config config;
  schema::Rollback rollback;  // of config
  const kj::String sessionProgram;
  const kj::String sessionBuild;
  SystemRandom random;
  kj::Own<Registry> registry;
  Records records;
  PolicyStore policyStore;
  Moves moves;
  Decisions deciding;
  LocalCallers callers;
  LiveGrants grants;
  Channels channels;
  Admission admission;
  VsockDoors doors;
  const LibvirtDoor libvirt;
  BoardWriter board;
  SessionRenewal::Vms vms;
  SessionRenewal renewal;
  kj::HashSet<kj::String> leaving;  // names of VMs that are being removed or moved
  Damper unknownGrants;             // by VM
  DaemonMetrics counted;
  kj::Date decidedAt;  // all that lives

  kj::TaskSet tasks;
  kj::Promise<void> ticking;
  kj::Promise<void> expiring;  // while there is a rule that expires

  Vm::Environment vmEnvironment();
  void startVm(const VmRecord& record);
  void startAnew(kj::StringPtr name);
  kj::Promise<void> takeDown(kj::StringPtr name, kj::StringPtr why);
  void openDoors();
  kj::Promise<void> tickForEver();
  void tellEvent(kj::StringPtr vm, kj::StringPtr kind, kj::String text) { records.tell(vm, kind, kj::mv(text)); }
  unsigned cutWhatIsForbidden();
  LimitsInUse limitsInUse();
  void sendLimits(Vm& vm, const LimitsInUse& inUse);
  void reloadConfig(kj::StringPtr path, Presence presence);

  kj::Maybe<kj::String> vmOfCid(uint32_t cid) override;
  void vsockVisitor(Visitor visitor) override;
  void vsockTurnedAway(const TurnedAway& peer) override { counted.turned(peer); }
  void vsockStranger(const PeerAddress& peer, uint64_t leftOut) override;
  void vsockDoorFailed(kj::StringPtr vm, kj::StringPtr text) override;

  void operation(Vm& vm, const OperationReport& report) override;
  void turnedAway(const TurnedAway& peer) override { counted.turned(peer); }
  bool stillAllowed(const GrantEntry& grant);
  bool hasExpired() const;
  kj::Maybe<kj::Duration> untilExpiry() const;
  kj::Promise<void> cutWhenRulesExpire();
  void watchExpiry();
  void sessionLost(Vm& vm) override;
  void guestQuarantined(Vm& vm) override;
  void limitsWanted(Vm& vm) override { sendLimits(vm, limitsInUse()); }
  void vsockChanged(Vm& vm) override;
  void event(Vm& vm, kj::StringPtr kind, kj::String text) override;
  void taskFailed(kj::Exception&& exception) override;
};

template <typename T>
kj::Promise<T> Daemon::seeThrough(kj::Promise<T> promise) {
  auto result = kj::newPromiseAndFulfiller<T>();
  auto& fulfiller = *result.fulfiller;
  tasks.add(promise
                .then([&fulfiller](T value) { fulfiller.fulfill(kj::mv(value)); },
                      [&fulfiller](kj::Exception&& e) { fulfiller.reject(kj::mv(e)); })
                .attach(kj::mv(result.fulfiller)));
  return kj::mv(result.promise);
}

}  // namespace postern::host
