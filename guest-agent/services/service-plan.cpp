#include "guest-agent/services/service-plan.h"

#include <sodium.h>

#include "protocol/policy/wording.h"

namespace postern::guest {

namespace {

LocalAddress copyOf(const LocalAddress& address) {
  KJ_IF_MAYBE (unix, address.tryGet<UnixAddress>()) return UnixAddress{kj::str(unix->path)};
  return address.get<TcpAddress>();
}

ServiceProgram copyOf(const ServiceProgram& program) {
  auto argv = KJ_MAP(part, program.argv) {
    return kj::str(part);
  };
  return {kj::mv(argv)};
}

ServiceTarget copyOf(const ServiceTarget& target) {
  ServiceTarget copy;
  copy.name = kj::str(target.name);
  copy.proxy = target.proxy;
  copy.user = target.user.map([](const kj::String& user) { return kj::str(user); });
  KJ_IF_MAYBE (program, target.leadsTo.tryGet<ServiceProgram>()) {
    copy.leadsTo = copyOf(*program);
  } else {
    copy.leadsTo = copyOf(target.leadsTo.get<LocalAddress>());
  }
  return copy;
}

bool needsUser(const ServiceTarget& target) {
  KJ_IF_MAYBE (address, target.leadsTo.tryGet<LocalAddress>()) return address->is<UnixAddress>();
  return true;
}

// All that a target is, as a line; equal for targets that are the same.
kj::String identityOf(const ServiceTarget& target) {
  kj::String leadsTo;
  KJ_IF_MAYBE (program, target.leadsTo.tryGet<ServiceProgram>()) {
    kj::Vector<kj::String> arguments;
    for (auto& argument : program->argv) arguments.add(policy::tomlString(argument));
    leadsTo = kj::str('[', kj::strArray(arguments, ","), ']');
  } else {
    leadsTo = policy::tomlString(kj::str(target.leadsTo.get<LocalAddress>()));
  }
  kj::StringPtr user = "";
  KJ_IF_MAYBE (name, target.user) user = *name;
  return kj::str(target.name, ' ', leadsTo, ' ', policy::tomlString(user), target.proxy ? " proxy" : "");
}

}  // namespace

kj::OneOf<ServicePlan, ServiceRefusal> planService(const GuestPolicy& policy, const ServicesSettings& services,
                                                   const RunAs& agent, kj::StringPtr service,
                                                   kj::StringPtr callerText) {
  using Kind = ServiceRefusal::Kind;
  auto caller = parseCallerText(callerText);
  if (caller == nullptr) return ServiceRefusal{Kind::DENIED, GuestPolicy::unknownCaller().detail, kj::String()};
  KJ_IF_MAYBE (denial, policy.decide(KJ_ASSERT_NONNULL(caller), kj::str("service.", service))) {
    return ServiceRefusal{Kind::DENIED, kj::mv(denial->detail), kj::mv(denial->rule)};
  }
  KJ_IF_MAYBE (target, services.find(service)) {
    ServicePlan plan{copyOf(*target), nullptr};
    if (!needsUser(*target)) return kj::mv(plan);
    auto user =
        findOpenerUser(target->user.map([](const kj::String& name) -> kj::StringPtr { return name; }).orDefault(""),
                       agent, USER_OF_SERVICE);
    KJ_IF_MAYBE (why, user.tryGet<kj::String>()) return ServiceRefusal{Kind::NOT_REACHED, kj::mv(*why), kj::String()};
    plan.user = kj::mv(user.get<OpenerUser>());
    return kj::mv(plan);
  }
  return ServiceRefusal{Kind::NOT_EXPORTED, kj::str("this guest exports no service '", service, "'"), kj::String()};
}

kj::String whereTo(const ServiceTarget& target) {
  KJ_IF_MAYBE (program, target.leadsTo.tryGet<ServiceProgram>()) return kj::str(program->argv[0]);
  return kj::str(target.leadsTo.get<LocalAddress>());
}

ExportedService exportOf(const ServiceTarget& target) {
  auto text = identityOf(target);
  auto identity = kj::heapArray<kj::byte>(crypto_generichash_BYTES);
  crypto_generichash(identity.begin(), identity.size(), text.asBytes().begin(), text.size(), nullptr, 0);
  return {kj::str(target.name), kj::mv(identity)};
}

kj::String ServicePlan::identity() const {
  kj::String who;
  KJ_IF_MAYBE (u, user) {
    who = kj::str(policy::tomlString(u->name), ' ', kj::strArray(u->groups, ","));
    KJ_IF_MAYBE (identity, u->identity) who = kj::str(who, ' ', identity->uid, ' ', identity->gid);
  }
  return kj::str(identityOf(target), ' ', who);
}

}  // namespace postern::guest
