#include "host/daemon/session-renewal.h"

namespace postern::host {

bool SessionRenewal::isBack(kj::TimePoint now, Vms& vms) const {
  KJ_IF_MAYBE (vm, vms.find(last)) {
    if (!(*vm)->session().isAttached()) return false;
    return (*vm)->isConnected() || !wasConnected || now - turnBegan >= RENEWAL_PATIENCE;
  }
  return true;
}

void SessionRenewal::tick(kj::TimePoint now, Vms& vms) {
  if (now - turnBegan < RENEWAL_PAUSE || !isBack(now, vms)) return;
  // The first outdated one behind the last, around the end.
  Vm* chosen = nullptr;
  for (auto& entry : vms) {
    if (!entry.value->session().isOutdated()) continue;
    bool isBehind = entry.key > last;
    if (chosen == nullptr || isBehind) chosen = entry.value.get();
    if (isBehind) break;
  }
  if (chosen == nullptr) return;
  last = kj::str(chosen->record().name);
  wasConnected = chosen->isConnected();
  turnBegan = now;
  chosen->session().retire();
}

}  // namespace postern::host
