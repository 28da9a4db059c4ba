#include <algorithm>

#include "host/cli/commands.h"
#include "protocol/policy/call.h"

namespace postern::cli {

namespace {

// A guest exports no more, and open() takes no more calls at once.
constexpr size_t MAX_SERVICES = 256;
constexpr size_t CALLS_AT_ONCE = 16;

bool isService(kj::StringPtr call) {
  KJ_IF_MAYBE (family, policy::familyOf(call)) return *family == policy::CallFamily::SERVICE;
  return false;
}

// "service.NAME" of each that the guest's policy grants.
kj::Vector<kj::String> exportedBy(Invocation& run, kj::StringPtr vm) {
  auto client = run.openVm(vm, {"service.*"_kj});
  auto response = run.await(client->calls().servicesRequest().send(), vm);
  run.check(response, vm);
  kj::Vector<kj::String> calls;
  for (auto untrusted : response.getServices()) {
    auto call = kj::str("service.", untrusted);
    if (isService(call) && calls.size() < MAX_SERVICES) calls.add(kj::mv(call));
  }
  std::sort(calls.begin(), calls.end());
  return calls;
}

// Those of the calls that the host's policy grants, too.
void addGranted(Invocation& run, kj::StringPtr vm, kj::ArrayPtr<const kj::String> calls,
                kj::Vector<kj::String>& names) {
  auto pointers = KJ_MAP(call, calls) {
    return kj::StringPtr(call);
  };
  try {
    auto client = run.openVm(vm, pointers);
    for (auto& call : calls) {
      for (auto& granted : client->granted()) {
        if (granted == call) names.add(kj::str(call.slice(kj::StringPtr("service.").size())));
      }
    }
  } catch (const CommandFailure& failed) {
    if (failed.failure.kind != client::FailureKind::DENIED) throw;  // none of them
  }
}

}  // namespace

ExitStatus runServices(Invocation& run, const ServicesArguments& arguments) {
  auto calls = exportedBy(run, arguments.vm);
  kj::Vector<kj::String> names;
  for (size_t i = 0; i < calls.size(); i += CALLS_AT_ONCE) {
    addGranted(run, arguments.vm, calls.slice(i, kj::min(i + CALLS_AT_ONCE, calls.size())), names);
  }
  if (!run.options.json) {
    for (auto& name : names) run.world.out(kj::str(name, '\n'));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).field("vm", arguments.vm).key("services").beginArray();
  for (auto& name : names) json.value(name);
  json.endArray().endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

}  // namespace postern::cli
