#include "host/daemon/file-grants.h"

#include <capnp/serialize.h>
#include <kj/debug.h>

#include <algorithm>

#include "protocol/policy/below.h"
#include "protocol/transfer/path-scope.h"

namespace postern::host {

namespace {

using policy::Reason;

bool goesBelow(kj::StringPtr call) {
  return call == "file.get" || call == "file.put" || call == "file.list";
}

void write(const policy::Limits& from, kj::StringPtr rule, schema::Limit::Builder to) {
  to.setRule(rule);
  to.setRate(from.rate.orDefault(0));
  to.setBurst(from.burst.orDefault(0));
  to.setPeak(from.peak.orDefault(0));
  to.setOpen(from.open.orDefault(0));
}

bool isLimited(const policy::Limits& limits) {
  return limits.rate != nullptr || limits.peak != nullptr || limits.open != nullptr;
}

// The rules of a policy are sorted by id.
kj::Maybe<const policy::Rule&> findRule(const policy::Policy& policy, kj::StringPtr id) {
  auto& rules = policy.document().rules;
  auto at = std::lower_bound(rules.begin(), rules.end(), id,
                             [](const policy::Rule& rule, kj::StringPtr wanted) { return rule.id < wanted; });
  if (at == rules.end() || at->id != id) return nullptr;
  return *at;
}

void fill(schema::FileGrant::Builder grant, const policy::Policy& policy, const policy::Request& request) {
  grant.setCall(request.call);
  auto scope = grant.initScope();
  transfer::PathScope::of(policy, request).write(scope);
  kj::Vector<const policy::Rule*> limited;
  for (auto entry : scope.asReader().getRules()) {
    if (entry.getDenies()) continue;
    KJ_IF_MAYBE (rule, findRule(policy, entry.getId())) {
      if (isLimited(rule->limits)) limited.add(rule);
    }
  }
  auto limits = grant.initLimits(static_cast<unsigned>(limited.size()));
  for (unsigned i = 0; i < limits.size(); ++i) write(limited[i]->limits, limited[i]->id, limits[i]);
}

// What fileGrants() gave, to be read.
class FlatGrant {
 public:
  explicit FlatGrant(kj::ArrayPtr<const capnp::word> words) : segments{words}, reader(segments, optionsFor(words)) {}
  schema::Grant::Reader grant() { return reader.getRoot<schema::Grant>(); }

 private:
  const kj::ArrayPtr<const capnp::word> segments[1];
  capnp::SegmentArrayMessageReader reader;

  static capnp::ReaderOptions optionsFor(kj::ArrayPtr<const capnp::word> words) {
    capnp::ReaderOptions options;
    options.traversalLimitInWords = 16 * words.size();
    return options;
  }
};

}  // namespace

bool isFileCall(kj::StringPtr call) {
  KJ_IF_MAYBE (family, policy::familyOf(call)) return *family == policy::CallFamily::FILE;
  return false;
}

// T79
FileDecision decideFile(const policy::Policy& policy, const policy::Request& request) {
  FileDecision decided{policy.decide(request)};
  auto reason = decided.decision.reason;
  if ((reason == Reason::NO_RULE || reason == Reason::EXPIRED) && goesBelow(request.call)) {
    decided.below = policy::allowsBelow(policy, request);
  }
  return decided;
}

kj::Array<const capnp::word> fileGrants(const policy::Policy& policy, policy::Request request,
                                        kj::ArrayPtr<const kj::String> calls) {
  kj::Vector<kj::StringPtr> fileCalls;
  for (auto& call : calls) {
    if (isFileCall(call)) fileCalls.add(call);
  }
  if (fileCalls.empty()) return nullptr;
  capnp::MallocMessageBuilder message;
  auto grant = message.initRoot<schema::Grant>();
  auto list = grant.initFiles(static_cast<unsigned>(fileCalls.size()));
  for (unsigned i = 0; i < list.size(); ++i) {
    request.call = fileCalls[i];
    fill(list[i], policy, request);
  }
  KJ_IF_MAYBE (vm, request.target.tryGet<policy::Vm>()) {
    KJ_IF_MAYBE (port, policy.port(vm->name)) {
      if (isLimited(port->limits)) write(port->limits, "", grant.initPort());
    }
  }
  return capnp::canonicalize(grant.asReader());
}

void setFileGrants(schema::Grant::Builder grant, kj::ArrayPtr<const capnp::word> files) {
  if (files.size() == 0) return;
  FlatGrant flat(files);
  grant.setFiles(flat.grant().getFiles());
  if (flat.grant().hasPort()) grant.setPort(flat.grant().getPort());
}

bool allowsSpecial(kj::ArrayPtr<const capnp::word> files, kj::StringPtr call) {
  if (files.size() == 0) return false;
  FlatGrant flat(files);
  for (auto file : flat.grant().getFiles()) {
    if (file.getCall() == call) return file.getScope().getSpecial();
  }
  return false;
}

}  // namespace postern::host
