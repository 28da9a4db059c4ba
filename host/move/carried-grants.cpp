#include "host/move/carried-grants.h"

#include "protocol/policy/load.h"

namespace postern::host {

namespace {

using policy::Party;

bool isCaller(const Party& party) {
  return party.kind == Party::Kind::USER || party.kind == Party::Kind::HOST_GROUP || party.kind == Party::Kind::HOST;
}

bool isGrantOf(kj::StringPtr vm, const policy::Rule& rule) {
  if (rule.kind != policy::Rule::Kind::ALLOW || rule.mirror != nullptr) return false;
  if (rule.to.size() != 1 || rule.to[0].kind != Party::Kind::VM || rule.to[0].name != vm) return false;
  for (auto& from : rule.from) {
    if (!isCaller(from)) return false;
  }
  return true;
}

}  // namespace

// T123
bool areGrantsOf(kj::StringPtr vm, kj::StringPtr text) {
  policy::SourceText source{"grants"_kj, text};
  auto loaded = policy::load(kj::arrayPtr(&source, 1), {policy::Side::HOST, kj::UNIX_EPOCH});
  if (!loaded.is<policy::Loaded>()) return false;
  auto& document = loaded.get<policy::Loaded>().policy->document();
  for (auto& rule : document.rules) {
    if (!isGrantOf(vm, rule)) return false;
  }
  return document.groups.empty() && document.ports.empty() && document.tests.empty() && document.vmToVmPlace == nullptr;
}

}  // namespace postern::host
