#include "guest-agent/files/running-openers.h"

#include <kj/debug.h>
#include <sodium.h>
#include <sys/socket.h>

#include "guest-agent/bounded-text.h"
#include "guest-agent/broker/broker-wire.h"
#include "guest-agent/files/opener-order.h"
#include "guest-agent/log/log.h"

namespace postern::guest {

void RunningOpeners::add(uint64_t number, const transfer::FileOrder& order, kj::StringPtr caller,
                         const OpenerPlan& plan, kj::AutoCloseFd openerEnd,
                         kj::Own<kj::PromiseFulfiller<void>> cancel) {
  openers.emplace(
      number, Opener{transfer::copy(order), kj::str(caller), hashOf(order, plan), kj::mv(openerEnd), kj::mv(cancel)});
}

void RunningOpeners::cancel(uint64_t number) {
  auto found = openers.find(number);
  if (found != openers.end()) found->second.cancel->fulfill();
}

// T102
size_t RunningOpeners::planAgain(PlanFiles& plan) {
  size_t cut = 0;
  for (auto& entry : openers) {
    auto& opener = entry.second;
    if (isPlanned(opener, plan)) continue;
    // Both ends see it at once: the opener puts away what is half done, and the mover gets no further file.
    shutdown(opener.openerEnd, SHUT_RDWR);
    opener.cancel->fulfill();
    ++cut;
    logWarning("files-cut",
               kj::str(transfer::callName(opener.order.call), ' ', boundedText(opener.order.path, MAX_TEXT_BYTES),
                       " for ", opener.caller, ": this guest's new configuration does not allow it as it was begun"));
  }
  return cut;
}

bool RunningOpeners::isPlanned(const Opener& opener, PlanFiles& plan) {
  auto planned = plan(opener.order, opener.caller);
  return planned.is<OpenerPlan>() && hashOf(opener.order, planned.get<OpenerPlan>()) == opener.plan;
}

RunningOpeners::PlanHash RunningOpeners::hashOf(const transfer::FileOrder& order, const OpenerPlan& plan) {
  auto bytes = openerOrderBytes(order, plan.place, plan.user.name);
  auto groups = kj::strArray(plan.user.groups, ",");
  kj::String identity;
  KJ_IF_MAYBE (who, plan.user.identity) identity = kj::str(who->uid, ':', who->gid);
  auto rest = kj::str('\n', identity, '\n', groups);
  PlanHash hash;
  crypto_generichash_state state;
  crypto_generichash_init(&state, nullptr, 0, hash.size());
  for (auto part : {bytes.asBytes(), rest.asBytes()}) crypto_generichash_update(&state, part.begin(), part.size());
  crypto_generichash_final(&state, hash.data(), hash.size());
  return hash;
}

}  // namespace postern::guest
