#include "host/daemon/file-grants.h"

#include <capnp/serialize.h>
#include <kj/debug.h>

#include "host/daemon/policy-limits.h"
#include "protocol/policy/below.h"
#include "protocol/transfer/path-scope.h"

namespace postern::host {

namespace {

using policy::Reason;

bool goesBelow(kj::StringPtr call) {
  return call == "file.get" || call == "file.put" || call == "file.list";
}

bool isLimited(const policy::Limits& limits) {
  return limits.rate != nullptr || limits.peak != nullptr || limits.open != nullptr || limits.callsPerHour != nullptr ||
         limits.bytes != nullptr;
}

void fillLimits(schema::FileGrant::Builder grant, const policy::Policy& policy) {
  kj::Vector<const policy::Rule*> limited;
  for (auto entry : grant.getScope().asReader().getRules()) {
    if (entry.getDenies()) continue;
    KJ_IF_MAYBE (rule, findRule(policy, entry.getId())) {
      if (isLimited(rule->limits)) limited.add(rule);
    }
  }
  auto limits = grant.initLimits(static_cast<unsigned>(limited.size()));
  for (unsigned i = 0; i < limits.size(); ++i) writeLimit(limited[i]->limits, limited[i]->id, limits[i]);
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
    list[i].setCall(request.call);
    auto scope = list[i].initScope();
    transfer::PathScope::of(policy, request).write(scope);
  }
  return capnp::canonicalize(grant.asReader());
}

void setFileGrants(schema::Grant::Builder grant, kj::ArrayPtr<const capnp::word> files, const policy::Policy& policy) {
  if (files.size() == 0) return;
  FlatGrant flat(files);
  grant.setFiles(flat.grant().getFiles());
  for (auto file : grant.getFiles()) fillLimits(file, policy);
}

void forEachRule(kj::ArrayPtr<const capnp::word> files, kj::FunctionParam<void(kj::StringPtr)> what) {
  if (files.size() == 0) return;
  FlatGrant flat(files);
  for (auto file : flat.grant().getFiles()) {
    for (auto entry : file.getScope().getRules()) {
      if (!entry.getDenies()) what(entry.getId());
    }
  }
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
