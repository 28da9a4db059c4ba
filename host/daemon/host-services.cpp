#include "host/daemon/host-services.h"

#include <kj/debug.h>
#include <sys/socket.h>

#include "protocol/policy/wording.h"
#include "transport/service/connect-as.h"
#include "transport/service/local-address.h"

namespace postern::host {

namespace {

using Refused = HostServices::Refused;

kj::Array<kj::byte> headerFor(const ServiceTarget& target, kj::StringPtr peer) {
  if (!target.proxy) return nullptr;
  return proxyHeader(peer, target.name);
}

// On a socket that nothing has been written to: it has room for a header, or is of no use.
bool takes(int socket, kj::ArrayPtr<const kj::byte> header) {
  if (header.size() == 0) return true;
  return send(socket, header.begin(), header.size(), MSG_DONTWAIT | MSG_NOSIGNAL) == ssize_t(header.size());
}

Refused notReached(kj::String text) {
  return {"not-reached"_kj, kj::mv(text)};
}

kj::String argumentsOf(const ServiceProgram& program) {
  kj::Vector<kj::String> quoted;
  for (auto& argument : program.argv) quoted.add(policy::tomlString(argument));
  return kj::str('[', kj::strArray(quoted, ", "), ']');
}

}  // namespace

HostServices::HostServices(kj::UnixEventPort& port, Children::Tell tell) : port(port), tell(kj::mv(tell)) {}

void HostServices::set(kj::Vector<HostService> fresh) {
  services = {};
  for (auto& service : fresh) {
    auto name = kj::str(service.target.name);
    services.insert(kj::mv(name), kj::refcounted<Service>(kj::mv(service)));
  }
}

kj::Promise<HostServices::Outcome> HostServices::open(kj::StringPtr name, kj::StringPtr peer) {
  KJ_IF_MAYBE (found, services.find(name)) {
    auto& service = **found;
    KJ_IF_MAYBE (program, service.target.leadsTo.tryGet<ServiceProgram>()) return start(service, *program, peer);
    return connect(kj::addRef(service), service.target.leadsTo.get<LocalAddress>(), peer);
  }
  return Outcome(Refused{"not-exported"_kj, kj::str("postern.toml has no [service.", name, "]")});
}

kj::Promise<HostServices::Outcome> HostServices::connect(kj::Own<Service> service, const LocalAddress& address,
                                                         kj::StringPtr peer) {
  auto header = headerFor(service->target, peer);
  auto connecting = connectLocalAs(port, address, service->runAs, SERVICE_CONNECT_DEADLINE)
                        .then([&address, header = kj::mv(header)](auto outcome) -> Outcome {
                          KJ_IF_MAYBE (error, outcome.template tryGet<TransportError>()) {
                            return notReached(kj::str(address, ": ", error->text));
                          }
                          auto socket = kj::mv(outcome.template get<StrangersFd>());
                          if (!takes(socket, header)) {
                            return notReached(kj::str(address, ": it does not take a PROXY header"));
                          }
                          return Opened{kj::mv(socket), nullptr};
                        });
  return connecting.attach(kj::mv(service));  // which may be another one, or none, by then
}

kj::OneOf<Children*, HostServices::Refused> HostServices::roomFor(kj::StringPtr peer) {
  programs.eraseAll([](auto&, kj::Own<Children>& idle) { return idle->running() == 0 && idle->leftBehind() == 0; });
  size_t running = 0;
  for (auto& entry : programs) running += entry.value->running();
  if (running >= MAX_HOST_PROGRAMS) {
    return Refused{"too-many"_kj, kj::str(MAX_HOST_PROGRAMS, " programs serve guests, as many as may")};
  }
  auto& own = *programs.findOrCreate(peer, [&]() {
    auto children = kj::heap<Children>(
        port, [this](kj::StringPtr line) { tell(line); }, MAX_HOST_PROGRAMS_PER_VM);
    return kj::HashMap<kj::String, kj::Own<Children>>::Entry{kj::str(peer), kj::mv(children)};
  });
  if (own.running() >= MAX_HOST_PROGRAMS_PER_VM) {
    return Refused{"too-many"_kj,
                   kj::str(MAX_HOST_PROGRAMS_PER_VM, " programs serve ", peer, ", as many as may for one VM")};
  }
  return &own;
}

// T115
kj::Promise<HostServices::Outcome> HostServices::start(const Service& service, const ServiceProgram& program,
                                                       kj::StringPtr peer) {
  auto room = roomFor(peer);
  KJ_IF_MAYBE (refused, room.tryGet<Refused>()) return Outcome(kj::mv(*refused));
  auto pair = newProgramSockets(service.runAs);
  KJ_IF_MAYBE (error, pair.tryGet<TransportError>()) return Outcome(notReached(kj::mv(error->text)));
  auto& sockets = pair.get<ProgramSockets>();
  ChildDescription child;
  child.argv = KJ_MAP(part, program.argv) {
    return kj::str(part);
  };
  child.environment =
      kj::arr(kj::str(CHILD_PATH), kj::str("POSTERN_PEER=", peer), kj::str("POSTERN_SERVICE=", service.target.name));
  KJ_IF_MAYBE (user, service.runAs) {
    child.identity = user->identity;
    child.groups = kj::heapArray(user->groups.asPtr());
  }
  child.stdio = kj::mv(sockets.programs);
  child.grace = PROGRAM_GRACE;
  auto starting = room.get<Children*>()->start(kj::mv(child));
  return starting.started.then(
      [own = kj::mv(sockets.own), end = starting.end.ignoreResult()](StartOutcome failure) mutable -> Outcome {
        KJ_IF_MAYBE (why, failure) return notReached(kj::mv(why->text));
        return Opened{kj::mv(own), kj::mv(end)};
      });
}

kj::String HostServices::identityOf(kj::StringPtr name) const {
  KJ_IF_MAYBE (found, services.find(name)) {
    auto& target = (*found)->target;
    kj::String leadsTo;
    KJ_IF_MAYBE (program, target.leadsTo.tryGet<ServiceProgram>()) {
      leadsTo = argumentsOf(*program);
    } else {
      leadsTo = kj::str(target.leadsTo.get<LocalAddress>());
    }
    auto user = target.user.map([](const kj::String& u) { return kj::str(" as ", u); }).orDefault(kj::String());
    return kj::str(leadsTo, user, target.proxy ? " proxy" : "");
  }
  return kj::String();
}

}  // namespace postern::host
