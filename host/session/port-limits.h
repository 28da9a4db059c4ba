#pragma once
// PortLimits: the gates of one VM: its port's, which all file transfers and channels of the VM pass, and one for each
// rule of the host's policy. posternd says the numbers: with each grant and each flow, and of all at once when its
// policy is another one. The latest that was said counts, for what is open already as well.
//
// A rule's gate is kept as long as something may pass it, and until what was taken has come in again. One loop;
// outlives all that passes.

#include <kj/async.h>
#include <kj/map.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include "host/session/limit-gate.h"

namespace postern::host {

// Rules that are remembered beside those in use.
constexpr size_t MAX_IDLE_RULES = 256;
// A port's, a rule's, and what a caller asked for himself.
constexpr size_t MAX_PACED_GATES = 3;

class PortLimits {
 public:
  explicit PortLimits(kj::Timer& timer);
  KJ_DISALLOW_COPY(PortLimits);

  kj::Timer& clock() { return timer; }
  kj::Own<LimitGate> port() { return kj::addRef(*portGate); }
  // What a grant says of the port, where it says anything, and of its rules: their gates stay as long as what comes
  // back.
  kj::Vector<kj::Own<LimitGate>> learn(schema::Grant::Reader grant);
  // A rule's gate, with whatever numbers it has.
  kj::Own<LimitGate> gateOf(kj::StringPtr rule);

  void setPort(schema::Limit::Reader limit);
  kj::Own<LimitGate> setRule(kj::StringPtr rule, schema::Limit::Reader limit);
  // Of a rule that is not among them nothing was said: it keeps its numbers.
  void set(schema::Limit::Reader port, capnp::List<schema::Limit>::Reader rules);

  size_t rememberedRules() const { return rules.size(); }

  // When so many bytes may go on through all these gates, at most MAX_PACED_GATES. Null: at once. A promise that is
  // dropped has taken them all the same.
  kj::Maybe<kj::Promise<void>> pace(kj::ArrayPtr<LimitGate* const> gates, uint64_t bytes);

 private:
  struct Paced;

  kj::Timer& timer;
  kj::Own<LimitGate> portGate;
  kj::HashMap<kj::String, kj::Own<LimitGate>> rules;
  kj::PromiseFulfillerPair<void> changing = kj::newPromiseAndFulfiller<void>();
  kj::ForkedPromise<void> changed;

  void setGate(LimitGate& gate, schema::Limit::Reader limit);
  void learn(schema::FileGrant::Reader files, kj::Vector<kj::Own<LimitGate>>& gates);
  kj::Promise<void> untilTurn(kj::Own<Paced> paced, kj::Duration wait);
};

// A place at one gate, until it is destroyed.
class LimitPlace {
 public:
  LimitPlace(kj::Own<LimitGate> gate, kj::TimePoint now);
  ~LimitPlace() noexcept(false);
  KJ_DISALLOW_COPY(LimitPlace);

  LimitGate& gate() { return *passed; }

 private:
  kj::Own<LimitGate> passed;
};

}  // namespace postern::host
