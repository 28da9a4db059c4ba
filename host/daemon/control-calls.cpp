#include "host/daemon/control-calls.h"

#include <capnp/schema.h>
#include <kj/debug.h>
#include <unistd.h>

#include "host/audit/audit-verify.h"
#include "host/control/failure.h"
#include "host/daemon/caller-rights.h"
#include "host/daemon/channel-calls.h"
#include "host/daemon/event-stream.h"
#include "host/daemon/open-call.h"
#include "host/log/log.h"
#include "protocol/policy/explain.h"
#include "protocol/policy/grants.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

using Kind = schema::Failure::Kind;

constexpr unsigned MAX_AUDIT_LINES = 1000;
// On one connection at a time: each looks at every event.
constexpr unsigned MAX_EVENT_STREAMS = 4;
constexpr size_t VMS_PER_TURN = 64;

using AnyCall = capnp::CallContext<capnp::AnyPointer, capnp::AnyPointer>;

class ControlCalls final : public schema::Control::Server {
 public:
  ControlCalls(Daemon& daemon, CallBucket& bucket, kj::Promise<kj::Own<const LocalCaller>> caller)
      : daemon(daemon), bucket(bucket), caller(caller.fork()) {}

  DispatchCallResult dispatchCall(uint64_t interface, uint16_t method, AnyCall context) override;

  kj::Promise<void> open(OpenContext context) override;
  kj::Promise<void> listVms(ListVmsContext context) override;
  kj::Promise<void> showVm(ShowVmContext context) override;
  kj::Promise<void> addVm(AddVmContext context) override;
  kj::Promise<void> setVm(SetVmContext context) override;
  kj::Promise<void> removeVm(RemoveVmContext context) override;
  kj::Promise<void> status(StatusContext context) override;
  kj::Promise<void> events(EventsContext context) override;
  kj::Promise<void> forcePower(ForcePowerContext context) override;
  kj::Promise<void> whenOff(WhenOffContext context) override;
  kj::Promise<void> explainPolicy(ExplainPolicyContext context) override;
  kj::Promise<void> reloadPolicy(ReloadPolicyContext context) override;
  kj::Promise<void> audit(AuditContext context) override;
  kj::Promise<void> daemonInfo(DaemonInfoContext context) override;
  kj::Promise<void> channels(ChannelsContext context) override;
  kj::Promise<void> ports(PortsContext context) override;
  kj::Promise<void> blockPort(BlockPortContext context) override;
  kj::Promise<void> closeChannel(CloseChannelContext context) override;

 private:
  Daemon& daemon;
  CallBucket& bucket;
  unsigned eventStreams = 0;
  kj::ForkedPromise<kj::Own<const LocalCaller>> caller;

  // The caller, when its turn has come. One that goes away meanwhile, or later, ends the call.
  template <typename Context>
  kj::Promise<kj::Own<const LocalCaller>> turn(Context& context, unsigned cost = 1) {
    context.allowCancellation();
    return bucket.take(cost).then([this]() { return caller.addBranch(); });
  }
  // Of a call that looks at every VM: on a host with a thousand it is as much work as many others.
  unsigned costOfAll() { return 1 + static_cast<unsigned>(daemon.countVms() / VMS_PER_TURN); }

  kj::Maybe<Vm&> visibleVm(const LocalCaller& who, kj::StringPtr untrustedName, schema::Failure::Builder failure) {
    return findVisible(daemon, who, untrustedName, failure);
  }
  bool isAllowed(const LocalCaller& who, kj::Maybe<Vm&> vm, kj::StringPtr call, schema::Failure::Builder failure) {
    return host::isAllowed(daemon, who, vm, call, nullptr, failure);
  }
};

// Every call passes here. One that does not exist is refused by what the schema compiler made, and not counted.
ControlCalls::DispatchCallResult ControlCalls::dispatchCall(uint64_t interface, uint16_t method, AnyCall context) {
  auto methods = capnp::Schema::from<schema::Control>().getMethods();
  if (interface == capnp::typeId<schema::Control>() && method < methods.size()) {
    daemon.metrics().controlCalls.add({methods[method].getProto().getName()});
  }
  return Server::dispatchCall(interface, method, kj::mv(context));
}

kj::Promise<void> ControlCalls::open(OpenContext context) {
  return turn(context).then(
      [this, context](kj::Own<const LocalCaller> who) mutable { return openVm(daemon, kj::mv(who), context); });
}

kj::Promise<void> ControlCalls::listVms(ListVmsContext context) {
  return turn(context, costOfAll()).then([this, context](kj::Own<const LocalCaller> who) mutable {
    kj::Vector<Vm*> visible;
    for (auto* vm : daemon.allVms()) {
      if (daemon.decisions().isVisible(*who, vm->record())) visible.add(vm);
    }
    auto list = context.getResults().initVms(static_cast<unsigned>(visible.size()));
    for (unsigned i = 0; i < list.size(); ++i) visible[i]->describe(list[i]);
  });
}

kj::Promise<void> ControlCalls::showVm(ShowVmContext context) {
  return turn(context).then([this, context](kj::Own<const LocalCaller> who) mutable {
    auto results = context.getResults();
    auto failure = results.initFailure();
    KJ_IF_MAYBE (vm, visibleVm(*who, context.getParams().getName(), failure)) {
      results.disownFailure();
      vm->describe(results.initVm());
      if (!daemon.decisions().decideOnHost(*who, "admin.rekey").isAllowed()) return;
      results.setGuestPolicy(daemon.policy().guestHalf(vm->record().name));
    }
  });
}

kj::Maybe<kj::String> takeSettings(schema::VmSettings::Reader from, VmRecord& record) {
  record.name = kj::str(from.getName());
  if (from.getTransport().size() > 0) record.transport = kj::str(from.getTransport());
  if (from.getQmp().size() > 0) record.qmp = from.getQmp() == "none" ? kj::String() : kj::str(from.getQmp());
  if (from.getTags().size() > 0) {
    record.tags.clear();
    for (auto tag : from.getTags()) {
      if (tag.size() > 0) record.tags.add(kj::str(tag));
    }
  }
  if (from.getUuid().size() > 0) {
    KJ_IF_MAYBE (id, parseVmId(from.getUuid())) {
      record.uuid = *id;
    } else {
      return kj::str("'", printable(from.getUuid()), "' is not a uuid (8-4-4-4-12 hexadecimal digits)");
    }
  }
  return findProblem(record);
}

kj::Promise<void> ControlCalls::addVm(AddVmContext context) {
  return turn(context).then([this, context](kj::Own<const LocalCaller> who) mutable {
    auto params = context.getParams();
    auto results = context.getResults();
    auto failure = results.initFailure();
    if (!isAllowed(*who, nullptr, "admin.enroll", failure)) return;
    VmRecord record;
    SystemRandom random;
    random.fill(kj::arrayPtr(record.uuid.bytes.data(), record.uuid.bytes.size()));
    // RFC 4122, version 4.
    record.uuid.bytes[6] = static_cast<kj::byte>((record.uuid.bytes[6] & 0x0f) | 0x40);
    record.uuid.bytes[8] = static_cast<kj::byte>((record.uuid.bytes[8] & 0x3f) | 0x80);
    KJ_IF_MAYBE (problem, takeSettings(params.getVm(), record)) {
      return setFailure(failure, Kind::INVALID, *problem);
    }
    if (daemon.findVm(record.name) != nullptr) {
      return setFailure(failure, Kind::INVALID,
                        kj::str("there is a VM ", record.name, " already; `postern vm rekey ", record.name,
                                "` makes a new bundle for it, `postern vm set` changes it"));
    }
    auto name = kj::str(record.name);
    KJ_IF_MAYBE (leaving, daemon.whyNotYet(name)) return setFailure(failure, Kind::FAILED, *leaving);
    // What an earlier VM of this name was granted, and kept after a crash, is not for this one.
    kj::Vector<kj::String> problems;
    (void)daemon.policy().removeGrants(name, problems);
    if (params.getGrants().size() > 0) {
      kj::Vector<kj::StringPtr> words, to;
      for (auto word : params.getGrants()) words.add(word);
      auto callerName = who->name();
      for (auto principal : params.getTo()) to.add(principal);
      if (to.empty()) to.add(callerName);
      auto written = policy::writeGrants({name, words, to});
      KJ_IF_MAYBE (problem, written.tryGet<kj::String>()) return setFailure(failure, Kind::INVALID, *problem);
      auto& grants = written.get<policy::Grants>();
      KJ_IF_MAYBE (unwritten, daemon.policy().putGrants(name, grants.hostPolicy, grants.guestPolicy)) {
        bool full = unwritten->why == PolicyStore::NotPut::Why::DISK;
        return setFailure(failure, full ? Kind::FAILED : Kind::INVALID, unwritten->lines[0]);
      }
      results.setGrantFile(daemon.policy().grantFile(name));
      results.setGrantText(grants.hostPolicy);
      results.setGuestPolicy(grants.guestPolicy);
    }
    KJ_IF_MAYBE (error, daemon.addVm(kj::mv(record))) {
      (void)daemon.policy().removeGrants(name, problems);
      return setFailure(failure, Kind::FAILED, error->text);
    }
    daemon.record(who->name(), name, "vm.add", "", "done");
    daemon.policyChanged();
    results.disownFailure();
  });
}

kj::Promise<void> ControlCalls::setVm(SetVmContext context) {
  return turn(context).then([this, context](kj::Own<const LocalCaller> who) mutable {
    auto failure = context.getResults().initFailure();
    auto settings = context.getParams().getVm();
    if (!isAllowed(*who, nullptr, "admin.enroll", failure)) return;
    KJ_IF_MAYBE (vm, visibleVm(*who, settings.getName(), failure)) {
      auto record = vm->record().clone();
      KJ_IF_MAYBE (problem, takeSettings(settings, record)) return setFailure(failure, Kind::INVALID, *problem);
      if (!(record.uuid == vm->record().uuid)) {
        return setFailure(failure, Kind::INVALID, "a VM's uuid is bound to its keys; remove the VM and enrol it anew");
      }
      KJ_IF_MAYBE (error, daemon.changeVm(kj::mv(record))) return setFailure(failure, Kind::FAILED, error->text);
      daemon.record(who->name(), settings.getName(), "vm.set", "", "done");
      context.getResults().disownFailure();
    }
  });
}

kj::Promise<void> ControlCalls::removeVm(RemoveVmContext context) {
  return turn(context).then([this, context](kj::Own<const LocalCaller> who) mutable -> kj::Promise<void> {
    auto results = context.getResults();
    auto failure = results.initFailure();
    auto name = kj::str(context.getParams().getName());
    if (!isAllowed(*who, nullptr, "admin.remove", failure)) return kj::READY_NOW;
    if (visibleVm(*who, name, failure) == nullptr) return kj::READY_NOW;
    results.disownFailure();
    kj::Vector<kj::String> problems;
    results.setRemovedGrants(daemon.policy().removeGrants(name, problems));
    for (auto& problem : problems) logEvent(LogLevel::ERROR, "policy-error", problem, name);
    daemon.record(who->name(), name, "vm.remove", "", "done");
    daemon.policyChanged();
    return daemon.seeThrough(daemon.removeVm(name)).then([context](kj::Maybe<FileError> error) mutable {
      KJ_IF_MAYBE (e, error) setFailure(context.getResults().initFailure(), Kind::FAILED, e->text);
    });
  });
}

kj::Promise<void> ControlCalls::status(StatusContext context) {
  return turn(context, costOfAll()).then([this, context](kj::Own<const LocalCaller> who) mutable {
    auto wanted = context.getParams().getVms();
    kj::Vector<Vm*> shown;
    auto consider = [&](Vm& vm) {
      if (shown.size() < MAX_VMS && daemon.decisions().isVisible(*who, vm.record())) shown.add(&vm);
    };
    if (wanted.size() == 0) {
      for (auto* vm : daemon.allVms()) consider(*vm);
    }
    for (unsigned i = 0; i < kj::min(wanted.size(), MAX_VMS); ++i) {
      KJ_IF_MAYBE (vm, daemon.findVm(wanted[i])) consider(*vm);
    }
    auto list = context.getResults().initVms(static_cast<unsigned>(shown.size()));
    for (unsigned i = 0; i < list.size(); ++i) shown[i]->describe(list[i], daemon.timer().now());
  });
}

kj::Promise<void> ControlCalls::events(EventsContext context) {
  return turn(context).then([this, context](kj::Own<const LocalCaller> who) mutable -> kj::Promise<void> {
    KJ_REQUIRE(eventStreams < MAX_EVENT_STREAMS, "too many calls of events() on one connection");
    ++eventStreams;
    auto params = context.getParams();
    auto last = daemon.eventLog().last();
    auto backlog = kj::min(uint64_t(params.getBacklog()), last);
    auto until = params.getFollow() ? EventStream::Until::FOREVER : EventStream::Until::LAST;
    auto stream = kj::refcounted<EventStream>(daemon, kj::mv(who), params.getVm(), last - backlog, params.getSink());
    context.releaseParams();
    auto done = stream->run(until);
    return done.attach(kj::mv(stream), kj::defer([this]() { --eventStreams; }));
  });
}

kj::Promise<void> ControlCalls::forcePower(ForcePowerContext context) {
  return turn(context).then([this, context](kj::Own<const LocalCaller> who) mutable -> kj::Promise<void> {
    auto params = context.getParams();
    auto failure = context.getResults().initFailure();
    KJ_IF_MAYBE (vm, visibleVm(*who, params.getVm(), failure)) {
      auto call = params.getReset() ? "power.restart"_kj : "power.shutdown"_kj;
      if (!isAllowed(*who, *vm, call, failure)) return kj::READY_NOW;
      KJ_IF_MAYBE (qmp, vm->qmp()) {
        auto name = kj::str(params.getVm());
        // It is carried out and recorded, whether or not the caller waits for it.
        auto forced =
            qmp->force(params.getReset())
                .then([&daemon = daemon, call, name = kj::mv(name), who = kj::mv(who)](kj::Maybe<kj::String> problem) {
                  daemon.record(who->name(), name, kj::str(call, ".force"), "",
                                problem == nullptr ? "done"_kj : "failed"_kj);
                  return problem;
                });
        return daemon.seeThrough(kj::mv(forced)).then([context](kj::Maybe<kj::String> problem) mutable {
          KJ_IF_MAYBE (text, problem) {
            setFailure(context.getResults().getFailure(), Kind::FAILED, *text);
          } else {
            context.getResults().disownFailure();
          }
        });
      }
      setFailure(failure, Kind::INVALID, "this VM has no QMP socket; `postern vm set VM --qmp PATH` names it");
    }
    return kj::READY_NOW;
  });
}

kj::Promise<void> ControlCalls::whenOff(WhenOffContext context) {
  return turn(context).then([this, context](kj::Own<const LocalCaller> who) mutable -> kj::Promise<void> {
    auto params = context.getParams();
    auto failure = context.getResults().initFailure();
    KJ_IF_MAYBE (vm, visibleVm(*who, params.getVm(), failure)) {
      auto call = params.getReset() ? "power.restart"_kj : "power.shutdown"_kj;
      if (!daemon.decisions().decide(*who, vm->record(), call).isGranted()) {
        setFailure(failure, Kind::DENIED, "not allowed");
        return kj::READY_NOW;
      }
      KJ_IF_MAYBE (qmp, vm->qmp()) {
        return qmp->whenOff(params.getReset()).then([context](kj::String how) mutable {
          context.getResults().disownFailure();
          context.getResults().setHow(how);
        });
      }
      setFailure(failure, Kind::INVALID, "this VM has no QMP socket");
    }
    return kj::READY_NOW;
  });
}

kj::Promise<void> ControlCalls::explainPolicy(ExplainPolicyContext context) {
  return turn(context).then([this, context](kj::Own<const LocalCaller> who) mutable {
    auto results = context.getResults();
    auto query = context.getParams().getQuery();
    auto failure = results.initFailure();
    bool aboutSelf = query.getFrom().size() == 0 || query.getFrom() == who->name();
    if (!aboutSelf && !isAllowed(*who, nullptr, "admin.policy", failure)) return;
    policy::Request request;
    kj::Vector<kj::StringPtr> fromTags, toTags;
    PolicyCaller self(*who);
    kj::StringPtr from = query.getFrom();
    if (aboutSelf) {
      request.caller = self.get();
    } else if (from.startsWith("user:")) {
      // Its groups are not known without asking the user database; rules for groups are shown as near misses.
      request.caller = policy::HostCaller{from.slice(5), nullptr};
    } else KJ_IF_MAYBE (vm, daemon.findVm(from)) {
      for (auto& tag : vm->record().tags) fromTags.add(tag);
      request.caller = policy::Vm{vm->record().name, fromTags};
    } else {
      return setFailure(failure, Kind::INVALID, "`from` is user:NAME or the name of a VM");
    }
    if (query.getTo() == "host") {
      request.target = policy::TheHost();
    } else KJ_IF_MAYBE (vm, visibleVm(*who, query.getTo(), failure)) {
      for (auto& tag : vm->record().tags) toTags.add(tag);
      request.target = policy::Vm{vm->record().name, toTags};
    } else {
      return;
    }
    request.call = query.getCall();
    kj::StringPtr path = query.getPath();
    if (path.size() > 0) request.path = path;
    request.now = kj::systemPreciseCalendarClock().now();
    auto explained = daemon.decisions().explain(request);
    results.disownFailure();
    results.setText(explained.text);
    results.setAllowed(explained.allowed);
  });
}

kj::Promise<void> ControlCalls::reloadPolicy(ReloadPolicyContext context) {
  return turn(context).then([this, context](kj::Own<const LocalCaller> who) mutable {
    auto failure = context.getResults().initFailure();
    if (!isAllowed(*who, nullptr, "admin.policy", failure)) return;
    KJ_IF_MAYBE (lines, daemon.policy().reload()) {
      daemon.record(who->name(), "", "policy.reload", "", "failed");
      return setFailure(failure, Kind::FAILED, kj::str("the earlier policy stays: ", kj::strArray(*lines, "\n")));
    }
    daemon.record(who->name(), "", "policy.reload", "", "done");
    daemon.eventLog().add("", "policy-reload", kj::str("by ", who->name()));
    daemon.policyChanged();
    context.getResults().disownFailure();
    context.getResults().setHash(policy::toHex(daemon.policy().current().hash()));
  });
}

kj::Promise<void> ControlCalls::audit(AuditContext context) {
  return turn(context).then([this, context](kj::Own<const LocalCaller> who) mutable {
    auto results = context.getResults();
    auto failure = results.initFailure();
    if (!isAllowed(*who, nullptr, "admin.audit", failure)) return;
    auto files = auditFiles(daemon.filePaths().auditLog);
    auto lines = auditTail(files, kj::min(context.getParams().getLast(), MAX_AUDIT_LINES));
    results.disownFailure();
    auto list = results.initLines(static_cast<unsigned>(lines.size()));
    for (unsigned i = 0; i < list.size(); ++i) list.set(i, lines[i]);
  });
}

// Channels and ports -----------------------------------------------------------------------------------------------

kj::Promise<void> ControlCalls::channels(ChannelsContext context) {
  return turn(context, costOfAll()).then([this, context](kj::Own<const LocalCaller> who) mutable {
    return listChannels(daemon, kj::mv(who), context);
  });
}

kj::Promise<void> ControlCalls::ports(PortsContext context) {
  return turn(context, costOfAll()).then([this, context](kj::Own<const LocalCaller> who) mutable {
    listPorts(daemon, *who, context);
  });
}

kj::Promise<void> ControlCalls::blockPort(BlockPortContext context) {
  return turn(context).then(
      [this, context](kj::Own<const LocalCaller> who) mutable { host::blockPort(daemon, *who, context); });
}

kj::Promise<void> ControlCalls::closeChannel(CloseChannelContext context) {
  return turn(context).then(
      [this, context](kj::Own<const LocalCaller> who) mutable { host::closeChannel(daemon, *who, context); });
}

kj::Promise<void> ControlCalls::daemonInfo(DaemonInfoContext context) {
  return turn(context).then([this, context](kj::Own<const LocalCaller>) mutable {
    auto results = context.getResults();
    results.setVersion(POSTERN_VERSION);
    results.setPid(static_cast<uint32_t>(getpid()));
    results.setVms(static_cast<uint32_t>(daemon.allVms().size()));
    results.setPolicyHash(policy::toHex(daemon.policy().current().hash()));
    KJ_IF_MAYBE (trouble, daemon.recording().auditLog().trouble()) results.setAuditTrouble(describe(*trouble));
  });
}

}  // namespace

schema::Control::Client newControl(Daemon& daemon, CallBucket& bucket, kj::Promise<kj::Own<const LocalCaller>> caller) {
  return kj::heap<ControlCalls>(daemon, bucket, kj::mv(caller));
}

}  // namespace postern::host
