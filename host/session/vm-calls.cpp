#include "host/session/vm-calls.h"

#include <capnp/message.h>
#include <kj/debug.h>

#include "host/control/failure.h"
#include "host/session/channels/service-calls.h"
#include "host/session/file-calls.h"
#include "host/session/guest-call.h"
#include "host/session/power-relay.h"
#include "protocol/policy/names.h"
#include "protocol/transfer/file-order.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

namespace wire = postern::schema;
using Kind = schema::Failure::Kind;

struct InfoCall {
  uint32_t bit;
  kj::StringPtr call;
};
const InfoCall INFO_CALLS[] = {
    {1, "info.os"_kj}, {2, "info.network"_kj}, {4, "info.filesystems"_kj}, {8, "info.users"_kj}};

constexpr kj::StringPtr SERVICE_NAME_RULE = "1 to 64 letters, digits, '-' and '_', beginning with a letter or digit"_kj;

kj::StringPtr callOf(wire::PowerRequest::Action action) {
  switch (action) {
    case wire::PowerRequest::Action::SHUTDOWN:
      return "power.shutdown";
    case wire::PowerRequest::Action::RESTART:
      return "power.restart";
    case wire::PowerRequest::Action::SUSPEND:
      return "power.suspend";
  }
  return "";  // granted to nobody
}

bool isKnown(wire::FileOrder::Call call) {
  return call <= wire::FileOrder::Call::REMOVE;
}

// A caller that goes away gives up its calls.
class VmCallsServer final : public schema::VmCalls::Server {
 public:
  VmCallsServer(const VmCallsEnvironment& environment, schema::Grant::Reader from, PassedWithGrant passed)
      : hub(environment.hub),
        vmName(kj::str(environment.vmName)),
        transfers(environment.transfers),
        log(environment.log),
        gates(kj::mv(passed.gates)),
        sockets(kj::mv(passed.sockets)),
        serviceCalls(environment.hub, environment.channels, from, kj::mv(passed.mirrors), *sockets) {
    copy.setRoot(from);
    // Whose sockets were passed beside it.
    copy.getRoot<schema::Grant>().disownServices();
  }
  ~VmCallsServer() noexcept(false) {
    if (pings > 0) log.operation({grant().getId(), "ping", kj::str(pings, " of them, ", pingsFailed, " failed")});
  }

  kj::Promise<void> ping(PingContext context) override;
  kj::Promise<void> info(InfoContext context) override;
  kj::Promise<void> power(PowerContext context) override;
  kj::Promise<void> whenGone(WhenGoneContext context) override;
  kj::Promise<void> issueBundle(IssueBundleContext context) override;
  kj::Promise<void> file(FileContext context) override;
  kj::Promise<void> connect(ConnectContext context) override;
  kj::Promise<void> services(ServicesContext context) override;

 private:
  Hub& hub;
  const kj::String vmName;
  TransferLimits& transfers;
  OperationLog& log;
  const kj::Vector<kj::Own<LimitGate>> gates;  // so that they stay
  kj::Own<PassedSockets> sockets;
  ServiceCalls serviceCalls;
  capnp::MallocMessageBuilder copy;
  kj::Maybe<wire::GuestCalls::Client> calls;
  uint64_t callsOfSession = 0;
  uint64_t pings = 0;
  uint64_t pingsFailed = 0;

  void pingFailed() {
    ++pingsFailed;
    log.pinged(nullptr);
  }

  schema::Grant::Reader grant() { return copy.getRoot<schema::Grant>().asReader(); }

  bool isGranted(kj::StringPtr call) {
    for (auto granted : grant().getCalls()) {
      if (granted == call) return true;
    }
    return false;
  }
  bool isAnyServiceGranted() {
    for (kj::StringPtr granted : grant().getCalls()) {
      if (granted.startsWith("service.")) return true;
    }
    return false;
  }

  void deny(schema::Failure::Builder failure, kj::StringPtr call) {
    setFailure(failure, Kind::DENIED, kj::str(call, " was not granted on this socket"));
  }

  // The guest's calls for this caller; fills in the failure when no guest is connected.
  template <typename Failure>
  kj::Maybe<wire::GuestCalls::Client> guestCalls(Failure failure) {
    KJ_IF_MAYBE (guest, hub.connected()) {
      if (calls == nullptr || callsOfSession != hub.sessionsMade()) {
        auto request = guest->guest().callsForRequest();
        request.setCaller(grant().getCaller());
        calls = request.send().getCalls();
        callsOfSession = hub.sessionsMade();
      }
      return KJ_ASSERT_NONNULL(calls);
    }
    calls = nullptr;
    setFailure(failure(), Kind::NOT_CONNECTED, notConnected());
    return nullptr;
  }

  kj::String notConnected() {
    if (!hub.vmKeys().isEnrolled()) {
      return kj::str("not enrolled; give its bundle to postern-agent in it, or make a new one with `postern vm rekey ",
                     vmName, "`");
    }
    KJ_IF_MAYBE (at, hub.lastHeartbeat()) {
      return kj::str("not connected (last heartbeat ", (hub.timer().now() - *at) / kj::SECONDS,
                     " s ago); is postern-agent running in it?");
    }
    return kj::str("not connected (no heartbeat yet); is postern-agent running in it?");
  }

  template <typename Failure>
  kj::Promise<void> bounded(kj::Promise<void> call, kj::Duration deadline, Failure failure) {
    return boundedCall(hub.timer(), kj::mv(call), deadline, kj::mv(failure));
  }
};

kj::Promise<void> VmCallsServer::ping(PingContext context) {
  context.allowCancellation();
  auto failure = [context]() mutable { return context.getResults().initFailure(); };
  if (!isGranted("ping")) {
    deny(failure(), "ping");
    return kj::READY_NOW;
  }
  ++pings;
  KJ_IF_MAYBE (guest, guestCalls(failure)) {
    auto began = RunningOperation::now();
    auto call = guest->pingRequest(capnp::MessageSize{2, 0}).send().then([context, began](auto answer) mutable {
      context.getResults().setLinkNanoseconds(uint64_t((RunningOperation::now() - began) / kj::NANOSECONDS));
      if (answer.hasRefusal()) setFailure(context.getResults().initFailure(), answer.getRefusal());
    });
    return bounded(kj::mv(call), PING_CALL_DEADLINE, failure).then([this, context]() mutable {
      auto results = context.getResults();
      if (results.hasFailure()) return pingFailed();
      log.pinged(int64_t(results.getLinkNanoseconds()) * kj::NANOSECONDS);
    });
  }
  pingFailed();
  return kj::READY_NOW;
}

kj::Promise<void> VmCallsServer::info(InfoContext context) {
  context.allowCancellation();
  auto failure = [context]() mutable { return context.getResults().initFailure(); };
  uint32_t granted = 0;
  for (auto& part : INFO_CALLS) {
    if (isGranted(part.call)) granted |= part.bit;
  }
  auto wanted = context.getParams().getWhat() & granted;
  if (wanted == 0) {
    deny(failure(), "info");
    return kj::READY_NOW;
  }
  auto operation = kj::heap<RunningOperation>(log, grant().getId(), "info");
  auto& reference = *operation;
  KJ_IF_MAYBE (guest, guestCalls(failure)) {
    auto request = guest->infoRequest();
    request.setWhat(wanted);
    auto call = request.send().then([context](auto answer) mutable {
      if (answer.hasRefusal()) {
        setFailure(context.getResults().initFailure(), answer.getRefusal());
      } else if (answer.getInfo().totalSize().wordCount > MAX_INFO_WORDS) {
        setFailure(context.getResults().initFailure(), Kind::FAILED,
                   "the guest's answer is larger than any honest one");
      } else {
        context.getResults().setInfo(answer.getInfo());
      }
    });
    return bounded(kj::mv(call), INFO_CALL_DEADLINE, failure)
        .then([context, &reference]() mutable {
          auto results = context.getResults();
          reference.came(results.hasFailure() ? outcomeOf(results.getFailure().asReader()) : "done"_kj);
        })
        .attach(kj::mv(operation));
  }
  reference.came("not connected");
  return kj::READY_NOW;
}

kj::Promise<void> VmCallsServer::power(PowerContext context) {
  context.allowCancellation();
  auto failure = [context]() mutable { return context.getResults().initFailure(); };
  auto params = context.getParams();
  auto call = callOf(params.getRequest().getAction());
  if (!isGranted(call)) {
    deny(failure(), call);
    return kj::READY_NOW;
  }
  auto operation = kj::heap<RunningOperation>(log, grant().getId(), call);
  auto& reference = *operation;
  KJ_IF_MAYBE (guest, guestCalls(failure)) {
    auto request = guest->powerRequest();
    request.setRequest(params.getRequest());
    request.setObserver(newPowerRelay(params.getObserver(), MAX_POWER_STEPS,
                                      [&hub = hub](kj::StringPtr step) { hub.tellPowerStep(step); }));
    auto accepted = request.send().then([context](auto answer) mutable {
      if (answer.hasRefusal()) {
        setFailure(context.getResults().initFailure(), answer.getRefusal());
      } else {
        context.getResults().setOperation(answer.getOperation());
      }
    });
    return bounded(kj::mv(accepted), POWER_CALL_DEADLINE, failure)
        .then([context, &reference]() mutable {
          auto results = context.getResults();
          reference.came(results.hasFailure() ? outcomeOf(results.getFailure().asReader()) : "accepted"_kj);
        })
        .attach(kj::mv(operation));
  }
  reference.came("not connected");
  return kj::READY_NOW;
}

kj::Promise<void> VmCallsServer::whenGone(WhenGoneContext context) {
  context.allowCancellation();
  bool reset = context.getParams().getReset();
  if (!isGranted(reset ? "power.restart"_kj : "power.shutdown"_kj) && !isGranted("power.suspend")) {
    deny(context.getResults().initFailure(), "power");
    return kj::READY_NOW;
  }
  auto gone = reset ? hub.whenRebooted() : hub.whenGone();
  return gone.then([context](Hub::Gone gone) mutable {
    if (gone.failed) {
      setFailure(context.getResults().initFailure(), Kind::FAILED, gone.how);
    } else {
      context.getResults().setHow(gone.how);
    }
  });
}

kj::Promise<void> VmCallsServer::issueBundle(IssueBundleContext context) {
  auto params = context.getParams();
  auto call = isGranted("admin.enroll") ? "admin.enroll"_kj : "admin.rekey"_kj;
  if (!isGranted(call)) {
    deny(context.getResults().initFailure(), "admin.enroll");
    return kj::READY_NOW;
  }
  RunningOperation operation(log, grant().getId(), call);
  auto lifetime = params.getLifetimeSeconds() == 0 ? DEFAULT_TOKEN_SECONDS : params.getLifetimeSeconds();
  if (lifetime > MAX_TOKEN_SECONDS || params.getGrants().size() > MAX_BUNDLE_GRANTS_BYTES ||
      params.getTransport().size() > 256) {
    operation.came("invalid");
    setFailure(context.getResults().initFailure(), Kind::INVALID,
               "a bundle lives at most 7 days, its grants have at most 2 KiB, its transport 256 bytes");
    return kj::READY_NOW;
  }
  auto issued = hub.vmKeys().issue(lifetime);
  KJ_IF_MAYBE (error, issued.tryGet<StateFileError>()) {
    operation.came("failed");
    setFailure(context.getResults().initFailure(), Kind::FAILED, kj::str("the VM's state file ", describe(*error)));
    return kj::READY_NOW;
  }
  auto& keys = issued.get<VmKeys::Issued>();
  Bundle bundle;
  bundle.vm = hub.vmKeys().vmId();
  bundle.vmName = kj::str(vmName);
  bundle.host = keys.host;
  bundle.token = kj::mv(keys.token);
  bundle.transport = kj::str(params.getTransport());
  bundle.grants = kj::str(params.getGrants());
  bundle.lifetimeSeconds = lifetime;
  auto results = context.getResults();
  results.setBundle(encodeBundle(bundle).get());
  results.setHostFingerprint(fingerprint(keys.host));
  hub.offerIssued(int64_t(lifetime) * kj::SECONDS);
  operation.came("done");
  return kj::READY_NOW;
}

kj::Promise<void> VmCallsServer::file(FileContext context) {
  context.allowCancellation();
  auto failure = [context]() mutable { return context.getResults().initFailure(); };
  auto order = context.getParams().getOrder();
  bool known = isKnown(order.getCall());
  auto call = known ? transfer::callName(order.getCall()) : "file"_kj;
  if (!known || !isGranted(call)) {
    deny(failure(), call);
    return kj::READY_NOW;
  }
  return runFileCall({hub, transfers, log, grant(), *sockets}, context, guestCalls(failure));
}

// T109
kj::Promise<void> VmCallsServer::connect(ConnectContext context) {
  context.allowCancellation();
  auto failure = [context]() mutable { return context.getResults().initFailure(); };
  kj::StringPtr service = context.getParams().getService();
  if (!policy::isServiceName(service)) {
    setFailure(failure(), Kind::INVALID, kj::str("the name of a service is ", SERVICE_NAME_RULE));
    return kj::READY_NOW;
  }
  auto call = kj::str("service.", service);
  if (!isGranted(call) || !serviceCalls.isGranted(service)) {
    deny(failure(), call);
    return kj::READY_NOW;
  }
  return serviceCalls.connect(context, guestCalls(failure));
}

kj::Promise<void> VmCallsServer::services(ServicesContext context) {
  context.allowCancellation();
  auto failure = [context]() mutable { return context.getResults().initFailure(); };
  if (!isAnyServiceGranted()) {
    deny(failure(), "service");
    return kj::READY_NOW;
  }
  auto operation = kj::heap<RunningOperation>(log, grant().getId(), "services");
  auto& reference = *operation;
  return serviceCalls.services(context, guestCalls(failure))
      .then([context, &reference]() mutable {
        auto results = context.getResults();
        reference.came(results.hasFailure() ? outcomeOf(results.getFailure().asReader()) : "done"_kj);
      })
      .attach(kj::mv(operation));
}

}  // namespace

schema::VmCalls::Client newVmCalls(const VmCallsEnvironment& environment, schema::Grant::Reader grant,
                                   PassedWithGrant passed) {
  return kj::heap<VmCallsServer>(environment, grant, kj::mv(passed));
}

}  // namespace postern::host
