#include "host/session/port-limits.h"

#include <kj/debug.h>

#include <array>

namespace postern::host {

PortLimits::PortLimits(kj::Timer& timer)
    : timer(timer), portGate(kj::refcounted<LimitGate>()), changed(changing.promise.fork()) {}

kj::Own<LimitGate> PortLimits::gateOf(kj::StringPtr rule) {
  KJ_IF_MAYBE (gate, rules.find(rule)) return kj::addRef(**gate);
  if (rules.size() >= MAX_IDLE_RULES) {
    rules.eraseAll(
        [now = timer.now()](kj::String&, kj::Own<LimitGate>& gate) { return !gate->isShared() && gate->isIdle(now); });
  }
  return kj::addRef(*rules.insert(kj::str(rule), kj::refcounted<LimitGate>()).value);
}

void PortLimits::setGate(LimitGate& gate, schema::Limit::Reader limit) {
  auto numbers = LimitNumbers::of(limit);
  if (numbers == gate.numbers()) return;
  gate.set(numbers, timer.now());
  changing.fulfiller->fulfill();
  changing = kj::newPromiseAndFulfiller<void>();
  changed = changing.promise.fork();
}

void PortLimits::setPort(schema::Limit::Reader limit) {
  setGate(*portGate, limit);
}

kj::Own<LimitGate> PortLimits::setRule(kj::StringPtr rule, schema::Limit::Reader limit) {
  auto gate = gateOf(rule);
  setGate(*gate, limit);
  return gate;
}

kj::Vector<kj::Own<LimitGate>> PortLimits::learn(schema::Grant::Reader grant) {
  kj::Vector<kj::Own<LimitGate>> gates;
  if (grant.hasPort()) setPort(grant.getPort());
  for (auto files : grant.getFiles()) learn(files, gates);
  for (auto service : grant.getServices()) gates.add(setRule(service.getRule(), service.getLimit()));
  return gates;
}

void PortLimits::learn(schema::FileGrant::Reader files, kj::Vector<kj::Own<LimitGate>>& gates) {
  kj::HashSet<kj::StringPtr> limited;
  for (auto limit : files.getLimits()) {
    limited.upsert(limit.getRule(), [](auto&, auto&&) {});
    gates.add(setRule(limit.getRule(), limit));
  }
  // Those that have none any more.
  for (auto rule : files.getScope().getRules()) {
    kj::StringPtr id = rule.getId();
    if (limited.contains(id)) continue;
    KJ_IF_MAYBE (gate, rules.find(id)) setGate(**gate, schema::Limit::Reader());
  }
}

// T105
void PortLimits::set(schema::Limit::Reader port, capnp::List<schema::Limit>::Reader limits) {
  setPort(port);
  for (auto limit : limits) {
    // A rule that nothing passes comes with its next grant.
    KJ_IF_MAYBE (gate, rules.find(limit.getRule())) setGate(**gate, limit);
  }
}

// What has taken its turns, and waits for the last of them.
struct PortLimits::Paced {
  struct At {
    kj::Own<LimitGate> gate;
    LimitGate::Turn turn;
  };
  kj::Array<At> all;

  kj::Duration waitFrom(kj::TimePoint now) {
    auto longest = 0 * kj::SECONDS;
    for (auto& at : all) longest = kj::max(longest, at.gate->waitFor(at.turn, now));
    return longest;
  }
};

kj::Maybe<kj::Promise<void>> PortLimits::pace(kj::ArrayPtr<LimitGate* const> gates, uint64_t bytes) {
  auto now = timer.now();
  std::array<LimitGate::Turn, MAX_PACED_GATES> turns;
  KJ_REQUIRE(gates.size() <= turns.size());
  auto longest = 0 * kj::SECONDS;
  for (size_t i = 0; i < gates.size(); ++i) {
    turns[i] = gates[i]->take(bytes, now);
    longest = kj::max(longest, gates[i]->waitFor(turns[i], now));
  }
  if (longest == 0 * kj::SECONDS) return nullptr;
  auto all = kj::heapArrayBuilder<Paced::At>(gates.size());
  for (size_t i = 0; i < gates.size(); ++i) all.add(Paced::At{kj::addRef(*gates[i]), turns[i]});
  return untilTurn(kj::heap(Paced{all.finish()}), longest);
}

kj::Promise<void> PortLimits::untilTurn(kj::Own<Paced> paced, kj::Duration wait) {
  return timer.afterDelay(wait)
      .exclusiveJoin(changed.addBranch())
      .then([this, paced = kj::mv(paced)]() mutable -> kj::Promise<void> {
        auto still = paced->waitFrom(timer.now());
        if (still == 0 * kj::SECONDS) return kj::READY_NOW;
        return untilTurn(kj::mv(paced), still);
      });
}

LimitPlace::LimitPlace(kj::Own<LimitGate> gate, kj::TimePoint now) : passed(kj::mv(gate)) {
  passed->enter(now);
}

LimitPlace::~LimitPlace() noexcept(false) {
  passed->leave();
}

}  // namespace postern::host
