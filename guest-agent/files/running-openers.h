#pragma once
// RunningOpeners: the openers that one agent has, in the broker: ended when the agent cancels them, and when a new
// configuration would not have them as they are.

#include <kj/async.h>
#include <kj/io.h>

#include <array>
#include <map>

#include "guest-agent/files/opener-plan.h"

namespace postern::guest {

using PlanFiles = kj::Function<kj::OneOf<OpenerPlan, FilesRefusal>(const transfer::FileOrder&, kj::StringPtr caller)>;

class RunningOpeners {
 public:
  // `openerEnd` is a copy of the opener's socket, kept to cut it off at once.
  void add(uint64_t number, const transfer::FileOrder& order, kj::StringPtr caller, const OpenerPlan& plan,
           kj::AutoCloseFd openerEnd, kj::Own<kj::PromiseFulfiller<void>> cancel);
  // It has ended, or nobody waits for it any more.
  void remove(uint64_t number) { openers.erase(number); }
  // Those that are not there are nobody's.
  void cancel(uint64_t number);
  size_t count() const { return openers.size(); }

  // Each order is planned anew. An opener whose plan is refused, or is another one, is cut off from its mover and has
  // OPENER_GRACE to end. How many.
  size_t planAgain(PlanFiles& plan);

 private:
  using PlanHash = std::array<kj::byte, 32>;
  struct Opener {
    transfer::FileOrder order;
    kj::String caller;
    PlanHash plan;
    kj::AutoCloseFd openerEnd;
    kj::Own<kj::PromiseFulfiller<void>> cancel;
  };
  std::map<uint64_t, Opener> openers;

  static PlanHash hashOf(const transfer::FileOrder& order, const OpenerPlan& plan);
  static bool isPlanned(const Opener& opener, PlanFiles& plan);
};

}  // namespace postern::guest
