#include "guest-agent/services/service-opener.h"

#include <errno.h>
#include <kj/debug.h>
#include <sys/socket.h>

#include "guest-agent/bounded-text.h"
#include "guest-agent/log/log.h"
#include "transport/service/connect-as.h"

namespace postern::guest {

namespace {

using Kind = ServiceRefusal::Kind;

ServiceRefusal notReached(kj::String why) {
  return {Kind::NOT_REACHED, kj::mv(why), kj::String()};
}

// Who connects, without his groups: "user:alice", "vm:web1".
kj::String peerOf(kj::StringPtr caller) {
  KJ_IF_MAYBE (slash, caller.findFirst('/')) return kj::heapString(caller.slice(0, *slash));
  return kj::str(caller);
}

// "service.http for vm:web1"
kj::String describe(const OpenServiceRequest& request) {
  return kj::str("service.", request.service, " for ", request.caller);
}

// On a socket to which nothing has been written: it has room for a header, or it is of no use.
bool sendHeader(int socket, const OpenServiceRequest& request) {
  auto header = proxyHeader(peerOf(request.caller), request.service);
  ssize_t sent = send(socket, header.begin(), header.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  return sent == ssize_t(header.size());
}

bool leadsToTcp(const ServiceTarget& target) {
  return target.leadsTo.is<LocalAddress>() && target.leadsTo.get<LocalAddress>().is<TcpAddress>();
}

// As whom the target is connected to, or runs. Null: as this process, or TCP.
kj::Maybe<ServiceUser> userOf(const ServicePlan& plan) {
  if (leadsToTcp(plan.target)) return nullptr;
  auto& user = KJ_ASSERT_NONNULL(plan.user);
  return user.identity.map([&user](const Identity& identity) {
    return ServiceUser{identity, kj::heapArray(user.groups.asPtr())};
  });
}

ChildDescription childFor(const OpenServiceRequest& request, const ServicePlan& plan, kj::AutoCloseFd programEnd) {
  auto argv = KJ_MAP(part, plan.target.leadsTo.get<ServiceProgram>().argv) {
    return kj::str(part);
  };
  auto environment = kj::arr(kj::str(CHILD_PATH), kj::str("POSTERN_PEER=", peerOf(request.caller)),
                             kj::str("POSTERN_SERVICE=", request.service));
  auto& user = KJ_ASSERT_NONNULL(plan.user);
  ChildDescription child{kj::mv(argv), kj::mv(environment), user.identity, kj::String(), nullptr};
  child.groups = kj::heapArray(user.groups.asPtr());
  child.stdio = kj::mv(programEnd);
  child.grace = SERVICE_GRACE;
  return child;
}

}  // namespace

ServiceOpener::ServiceOpener(kj::UnixEventPort& port, Children& programs, PlanService& plan)
    : port(port),
      programs(programs),
      plan(plan),
      opens(port.getTimer(), [](kj::StringPtr text) { logInfo("service-opened", text); }),
      refusals(port.getTimer(), [](kj::StringPtr text) { logWarning("service-refused", text); }),
      tasks(*this) {}
ServiceOpener::~ServiceOpener() noexcept(false) {}

// T98
kj::Promise<ServiceOpener::Result> ServiceOpener::open(uint64_t number, const OpenServiceRequest& request) {
  auto planned = plan(request.service, request.caller);
  KJ_IF_MAYBE (refusal, planned.tryGet<ServiceRefusal>()) return refuse(request, kj::mv(*refusal));
  auto& wanted = planned.get<ServicePlan>();
  if (wanted.target.leadsTo.is<ServiceProgram>()) return start(number, request, wanted);
  return connect(request, kj::mv(wanted));
}

// Connections ----------------------------------------------------------------------------------------------------

kj::Promise<ServiceOpener::Result> ServiceOpener::connect(const OpenServiceRequest& request, ServicePlan planParam) {
  auto own = kj::heap(kj::mv(planParam));
  auto& address = own->target.leadsTo.get<LocalAddress>();
  auto connecting = connectLocalAs(port, address, userOf(*own), SERVICE_CONNECT_DEADLINE);
  auto& borrowed = *own;
  auto done = connecting.then([this, &request, &borrowed](kj::OneOf<StrangersFd, TransportError> outcome) -> Result {
    KJ_IF_MAYBE (error, outcome.tryGet<TransportError>()) return refuse(request, notReached(kj::mv(error->text)));
    return connected(request, borrowed, kj::mv(outcome.get<StrangersFd>()));
  });
  return done.attach(kj::mv(own));
}

ServiceOpener::Result ServiceOpener::connected(const OpenServiceRequest& request, const ServicePlan& made,
                                               StrangersFd socket) {
  // The configuration may be another one by now.
  if (!isPlanned(request.service, request.caller, made.identity())) {
    return refuse(request, {Kind::DENIED, kj::str("this guest's configuration changed meanwhile"), kj::String()});
  }
  if (made.target.proxy && !sendHeader(socket, request)) {
    return refuse(request, notReached(kj::str("it does not take a PROXY header")));
  }
  opens.tell(request.service, kj::str(describe(request), ": ", whereTo(made.target)));
  return Opened{kj::mv(socket), false};
}

// Programs -------------------------------------------------------------------------------------------------------

// T100
kj::Promise<ServiceOpener::Result> ServiceOpener::start(uint64_t number, const OpenServiceRequest& request,
                                                        const ServicePlan& made) {
  if (programs.running() >= MAX_SERVICE_PROGRAMS) {
    return refuse(request, {Kind::BUSY, kj::str("as many programs serve connections as may"), kj::String()});
  }
  auto pair = newProgramSockets(userOf(made));
  KJ_IF_MAYBE (error, pair.tryGet<TransportError>()) return refuse(request, notReached(kj::mv(error->text)));
  auto& sockets = pair.get<ProgramSockets>();
  auto starting = programs.start(childFor(request, made, kj::mv(sockets.programs)));
  watch(number, request, made, kj::mv(starting.end));
  auto line = kj::str(describe(request), ": ", whereTo(made.target), ", as ", KJ_ASSERT_NONNULL(made.user).name);
  return starting.started.then(
      [this, &request, line = kj::mv(line), own = kj::mv(sockets.own)](StartOutcome failure) mutable -> Result {
        KJ_IF_MAYBE (why, failure) return refuse(request, notReached(kj::mv(why->text)));
        opens.tell(request.service, line);
        return Opened{kj::mv(own), true};
      });
}

// T100
// Until it ends, or is cancelled; then Children gives it its grace.
void ServiceOpener::watch(uint64_t number, const OpenServiceRequest& request, const ServicePlan& made,
                          kj::Promise<ChildEnd> end) {
  auto cancelled = kj::newPromiseAndFulfiller<void>();
  running.emplace(
      number, Program{kj::str(request.service), kj::str(request.caller), made.identity(), kj::mv(cancelled.fulfiller)});
  tasks.add(
      end.ignoreResult().exclusiveJoin(kj::mv(cancelled.promise)).then([this, number] { running.erase(number); }));
}

void ServiceOpener::cancel(uint64_t number) {
  auto found = running.find(number);
  if (found != running.end()) found->second.cancel->fulfill();
}

void ServiceOpener::planAgain() {
  for (auto& entry : running) {
    auto& program = entry.second;
    if (!isPlanned(program.service, program.caller, program.identity)) program.cancel->fulfill();
  }
}

bool ServiceOpener::isPlanned(kj::StringPtr service, kj::StringPtr caller, kj::StringPtr identity) {
  auto planned = plan(service, caller);
  return planned.is<ServicePlan>() && planned.get<ServicePlan>().identity() == identity;
}

ServiceOpener::Result ServiceOpener::refuse(const OpenServiceRequest& request, ServiceRefusal refusal) {
  // Names of services that there are not are one thing, however many somebody thinks of.
  kj::StringPtr thing = request.service;
  if (refusal.kind == Kind::NOT_EXPORTED || refusal.kind == Kind::DENIED) thing = "";
  refusals.tell(thing, kj::str(describe(request), ": ", boundedText(refusal.text, MAX_TEXT_BYTES)));
  return kj::mv(refusal);
}

void ServiceOpener::taskFailed(kj::Exception&& exception) {
  logError("service-failed", exception.getDescription());
}

}  // namespace postern::guest
