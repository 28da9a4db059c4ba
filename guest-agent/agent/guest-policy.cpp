#include "guest-agent/agent/guest-policy.h"

#include <kj/debug.h>
#include <kj/vector.h>

#include "protocol/policy/load.h"

namespace postern::guest {

namespace {

constexpr kj::StringPtr OTHER_KEYS[] = {"agent"_kj, "service"_kj, "consume"_kj};

policy::Caller callerOf(const VouchedCaller& caller, kj::Vector<kj::StringPtr>& groups) {
  KJ_IF_MAYBE (vm, caller.tryGet<VouchedVm>()) return policy::Vm{vm->name, nullptr};
  auto& user = caller.get<VouchedUser>();
  for (auto& group : user.groups) groups.add(group);
  return policy::HostCaller{user.name, groups};
}

policy::Request requestOf(policy::Caller caller, kj::StringPtr call) {
  policy::Request request;
  request.caller = kj::mv(caller);
  request.target = policy::Vm{nullptr, nullptr};
  request.call = call;
  request.now = kj::systemCoarseCalendarClock().now();
  return request;
}

// Of a request that is denied.
Denial denialOf(const policy::Policy& rules, const policy::Request& request) {
  auto decision = rules.decide(request);
  auto advice = rules.advise(request);
  kj::String suggestion;
  KJ_IF_MAYBE (toml, advice.toml) suggestion = kj::mv(*toml);
  // The advice's own words repeat the decision's, or introduce the suggestion, which whoever shows it introduces.
  return {decision.toString(), kj::heapString(decision.ruleId()), kj::mv(suggestion)};
}

}  // namespace

kj::Own<const GuestPolicy> GuestPolicy::denyAll() {
  return kj::heap<GuestPolicy>(policy::Policy::denyAll(policy::Side::GUEST));
}

kj::OneOf<kj::Own<const GuestPolicy>, PolicyErrors> GuestPolicy::parse(kj::StringPtr fileName, kj::StringPtr text) {
  policy::SourceText source{fileName, text};
  policy::LoadOptions options{policy::Side::GUEST, kj::systemCoarseCalendarClock().now(),
                              kj::arrayPtr(OTHER_KEYS, kj::size(OTHER_KEYS))};
  auto result = policy::load(kj::arrayPtr(&source, 1), options);
  if (result.is<policy::Loaded>()) {
    return kj::Own<const GuestPolicy>(kj::heap<GuestPolicy>(kj::mv(result.get<policy::Loaded>().policy)));
  }
  auto lines = KJ_MAP(problem, result.get<kj::Array<policy::Problem>>()) {
    return problem.toString();
  };
  return PolicyErrors{kj::mv(lines)};
}

kj::Maybe<Denial> GuestPolicy::decide(const VouchedCaller& caller, kj::StringPtr call) const {
  kj::Vector<kj::StringPtr> groups;
  auto request = requestOf(callerOf(caller, groups), call);
  if (rules->decide(request).isAllowed()) return nullptr;
  return denialOf(*rules, request);
}

kj::OneOf<FilePlace, Denial> GuestPolicy::decideFile(const VouchedCaller& caller,
                                                     const transfer::FileOrder& order) const {
  kj::Vector<kj::StringPtr> groups;
  auto request = requestOf(callerOf(caller, groups), transfer::callName(order.call));
  request.path = kj::StringPtr(order.path);
  auto reason = rules->decide(request).reason;
  // Of a path that no rule speaks of, what lies below may be allowed.
  if (reason == policy::Reason::RULE || reason == policy::Reason::NO_RULE || reason == policy::Reason::EXPIRED) {
    KJ_IF_MAYBE (place, placeOf(transfer::PathScope::of(*rules, request), order)) return kj::mv(*place);
    KJ_ASSERT(reason != policy::Reason::RULE, "a scope denies what its policy allows");
  }
  return denialOf(*rules, request);
}

Denial GuestPolicy::unknownCaller() {
  return Denial{kj::str("the host names a caller that cannot be: a name that is empty, too long or not one"),
                kj::String(), kj::String()};
}

}  // namespace postern::guest
