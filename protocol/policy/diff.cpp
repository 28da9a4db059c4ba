#include "protocol/policy/diff.h"

#include <kj/debug.h>
#include <kj/map.h>

#include <algorithm>

#include "protocol/policy/canonical.h"

namespace postern::policy {

namespace {

kj::StringPtr nameOf(const Rule& rule) {
  return rule.id;
}
kj::StringPtr nameOf(const Group& group) {
  return group.name;
}
kj::StringPtr nameOf(const Port& port) {
  return port.vm;
}

// Both lists by name; names are unique within each.
template <typename List>
void compare(const List& before, const List& after, Change::Of of, kj::Vector<Change>& out) {
  kj::TreeMap<kj::StringPtr, kj::String> old;
  for (auto& one : before) old.insert(nameOf(one), canonicalForm(one));
  for (auto& one : after) {
    auto name = nameOf(one);
    KJ_IF_MAYBE (form, old.find(name)) {
      if (*form != canonicalForm(one)) out.add(Change{Change::Kind::CHANGED, of, kj::heapString(name)});
      old.erase(name);
    } else {
      out.add(Change{Change::Kind::ADDED, of, kj::heapString(name)});
    }
  }
  for (auto& left : old) out.add(Change{Change::Kind::REMOVED, of, kj::heapString(left.key)});
}

kj::Maybe<kj::String> formOf(const Decision& decision) {
  KJ_IF_MAYBE (rule, decision.rule) return canonicalForm(*rule);
  return nullptr;
}

// A rule whose lists changed without a change for this question still counts: its limits are shared with others.
bool differ(const Decision& a, const Decision& b) {
  if (a.reason != b.reason || a.ruleId() != b.ruleId()) return true;
  auto formA = formOf(a), formB = formOf(b);
  KJ_IF_MAYBE (x, formA) {
    KJ_IF_MAYBE (y, formB) return *x != *y;
  }
  return false;
}

}  // namespace

kj::String Change::toString() const {
  auto action = kind == Kind::ADDED ? "added"_kj : kind == Kind::REMOVED ? "removed"_kj : "changed"_kj;
  switch (of) {
    case Of::RULE:
      return kj::str("rule '", name, "' ", action);
    case Of::GROUP:
      return kj::str("group '", name, "' ", action);
    case Of::PORT:
      return kj::str("port of '", name, "' ", action);
    case Of::VM_TO_VM:
      return kj::str("vm-to-vm ", action);
  }
  KJ_UNREACHABLE;
}

kj::Vector<Change> changes(const Policy& before, const Policy& after) {
  kj::Vector<Change> out;
  auto &a = before.document(), &b = after.document();
  compare(a.rules, b.rules, Change::Of::RULE, out);
  compare(a.groups, b.groups, Change::Of::GROUP, out);
  compare(a.ports, b.ports, Change::Of::PORT, out);
  if (a.vmToVm != b.vmToVm) out.add(Change{Change::Kind::CHANGED, Change::Of::VM_TO_VM, kj::String()});
  std::sort(out.begin(), out.end(), [](const Change& x, const Change& y) {
    return x.of != y.of ? x.of < y.of : kj::StringPtr(x.name) < kj::StringPtr(y.name);
  });
  return out;
}

kj::Vector<VerdictChange> verdictChanges(const Policy& before, const Policy& after, const Questions& questions) {
  kj::Vector<VerdictChange> out;
  for (size_t caller = 0; caller < questions.callers.size(); ++caller) {
    for (size_t target = 0; target < questions.targets.size(); ++target) {
      for (size_t call = 0; call < questions.calls.size(); ++call) {
        Request request;
        request.caller = questions.callers[caller];
        request.target = questions.targets[target];
        request.call = questions.calls[call].call;
        request.path = questions.calls[call].path;
        request.now = questions.now;
        auto old = before.decide(request);
        auto now = after.decide(request);
        if (differ(old, now)) out.add(VerdictChange{caller, target, call, kj::mv(old), kj::mv(now)});
      }
    }
  }
  return out;
}

}  // namespace postern::policy
