#include "host/daemon/service-grants.h"

#include "host/daemon/policy-limits.h"
#include "host/local-rpc/local-rpc.h"

namespace postern::host {

bool isServiceCall(kj::StringPtr call) {
  return call.startsWith(SERVICE_PREFIX);
}

void setServiceGrants(schema::Grant::Builder grant, GrantEntry& entry, const VmRecord& vm, const Decisions& decisions,
                      Mirrors& mirrors) {
  kj::Vector<kj::StringPtr> calls;
  kj::Vector<ServiceTerms> terms;
  for (auto& call : entry.granted.calls) {
    if (!isServiceCall(call) || call == ANY_SERVICE) continue;
    auto decided = decisions.decide(*entry.caller, vm, call);
    if (!decided.isGranted()) continue;
    calls.add(call);
    terms.add(ServiceTerms(decided.decision));
  }
  auto who = entry.caller->name(), to = kj::str("vm:", vm.name);
  auto list = grant.initServices(static_cast<unsigned>(calls.size()));
  entry.granted.services.clear();
  unsigned withMirror = 0;
  for (unsigned i = 0; i < list.size(); ++i) {
    auto& one = terms[i];
    list[i].setCall(calls[i]);
    list[i].setRule(one.rule);
    writeLimit(one.limits, one.rule, list[i].initLimit());
    mirrors.write(one, vm.name, who, to, [&]() { return list[i].initMirror(); });
    // One message brings so many, with the caller's socket. What is over that is as lost as one that is not reached.
    if (list[i].hasMirror() && ++withMirror >= MAX_TRUSTED_DESCRIPTORS) list[i].getMirror().disownSocket();
    entry.granted.services.add(
        GrantedService{kj::str(calls[i].slice(SERVICE_PREFIX.size())), kj::mv(one.rule), one.mirrorText()});
  }
}

}  // namespace postern::host
