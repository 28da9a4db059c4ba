#include "protocol/policy/canonical.h"

#include <kj/debug.h>
#include <kj/encoding.h>
#include <sodium.h>

#include <algorithm>

namespace postern::policy {

namespace {

class Form {
 public:
  void add(kj::StringPtr text) {
    bytes.addAll(kj::str(text.size(), ':'));
    bytes.addAll(text);
  }
  void addNumber(const kj::Maybe<uint64_t>& number) {
    KJ_IF_MAYBE (n, number) {
      add(kj::str(*n));
    } else {
      add("-");
    }
  }
  void addTime(const kj::Maybe<int64_t>& seconds) {
    KJ_IF_MAYBE (s, seconds) {
      add(kj::str(*s));
    } else {
      add("-");
    }
  }
  void addSet(kj::Vector<kj::String> texts) {
    std::sort(texts.begin(), texts.end());
    auto end = std::unique(texts.begin(), texts.end());
    add(kj::str(end - texts.begin()));
    for (auto text = texts.begin(); text != end; ++text) add(*text);
  }
  void addParties(kj::ArrayPtr<const Party> parties) {
    kj::Vector<kj::String> texts;
    for (auto& party : parties) texts.add(kj::str(party));
    addSet(kj::mv(texts));
  }
  void addLimits(const Limits& limits) {
    for (auto* limit : {&limits.rate, &limits.burst, &limits.peak, &limits.open, &limits.callsPerHour, &limits.bytes}) {
      addNumber(*limit);
    }
  }
  void addQuotas(const Quotas& quotas) {
    for (auto* quota : {&quotas.bytes, &quotas.files, &quotas.depth}) addNumber(*quota);
    add(quotas.special ? "special"_kj : ""_kj);
  }
  void addMaybe(const kj::Maybe<kj::String>& text) {
    KJ_IF_MAYBE (t, text) {
      add("+");
      add(kj::StringPtr(*t));
    } else {
      add("-");
    }
  }
  kj::String finish() { return kj::heapString(bytes); }

 private:
  kj::Vector<char> bytes;
};

template <typename List>
kj::Vector<kj::String> forms(const List& list) {
  kj::Vector<kj::String> out;
  for (auto& one : list) out.add(canonicalForm(one));
  return out;
}

}  // namespace

kj::String canonicalForm(const Rule& rule) {
  Form form;
  form.add(kindName(rule.kind));
  form.add(kj::StringPtr(rule.id));
  kj::Vector<kj::String> calls, paths, communities;
  for (auto& call : rule.calls) calls.add(kj::heapString(call.text));
  for (auto& path : rule.paths) paths.add(kj::heapString(path.text()));
  form.addSet(kj::mv(calls));
  form.addParties(rule.from.asPtr());
  form.addParties(rule.to.asPtr());
  form.addSet(kj::mv(paths));
  form.addLimits(rule.limits);
  form.addMaybe(rule.runAs);
  form.addTime(rule.expires);
  KJ_IF_MAYBE (mirror, rule.mirror) {
    form.add(kj::StringPtr(mirror->to));
    form.add(mirror->copy == Mirror::Copy::FULL ? "full"_kj : "meta"_kj);
  } else {
    form.add("");
  }
  form.addParties(rule.promiscuous.asPtr());
  form.addParties(rule.isolated.asPtr());
  for (auto& community : rule.communities) {
    Form inner;
    inner.add(kj::StringPtr(community.name));
    inner.addParties(community.members.asPtr());
    communities.add(inner.finish());
  }
  form.addSet(kj::mv(communities));
  // At the end and not without need: rules that have none keep the form, and their policy the hash, of before.
  if (!rule.quotas.isEmpty()) form.addQuotas(rule.quotas);
  return form.finish();
}

kj::String canonicalForm(const Group& group) {
  Form form;
  form.add(kj::StringPtr(group.name));
  form.addParties(group.members.asPtr());
  return form.finish();
}

kj::String canonicalForm(const Port& port) {
  Form form;
  form.add(kj::StringPtr(port.vm));
  form.add(port.blocked ? "blocked"_kj : "open"_kj);
  form.addLimits(port.limits);
  return form.finish();
}

kj::String canonicalForm(const Expectation& test) {
  Form form;
  form.add(test.wantsAllow ? "allow"_kj : "deny"_kj);
  form.addMaybe(test.ruleId);
  form.addParties(test.from.asPtr());
  form.addParties(test.to.asPtr());
  form.add(kj::StringPtr(test.call));
  form.addMaybe(test.path);
  form.addTime(test.at);
  return form.finish();
}

PolicyHash hashOf(const Document& document) {
  Form form;
  form.add(document.side == Side::HOST ? "postern policy 1, host"_kj : "postern policy 1, guest"_kj);
  form.add(document.vmToVm ? "enabled"_kj : "disabled"_kj);
  form.addSet(forms(document.rules));
  form.addSet(forms(document.groups));
  form.addSet(forms(document.ports));
  form.addSet(forms(document.tests));
  auto text = form.finish();
  PolicyHash hash;
  crypto_generichash_blake2b(hash.data(), hash.size(), text.asBytes().begin(), text.size(), nullptr, 0);
  return hash;
}

kj::String toHex(const PolicyHash& hash) {
  return kj::encodeHex(kj::arrayPtr(hash.data(), hash.size()));
}

}  // namespace postern::policy
