#pragma once
// Decisions: what posternd answers when something is asked: by the policy in force and by the ports that an
// administrator has blocked by hand. Everything that decides for a VM asks here.
//
// A port blocked by hand denies like one that the policy blocks (policy.h, step 3), and with the same reason and words:
// everything but status.read and admin.*.
//
// A Decision refers to the policy in force and to what is blocked now: use it in the same turn of the loop.

#include <kj/map.h>

#include "host/daemon/file-grants.h"
#include "host/daemon/local-callers.h"
#include "host/daemon/policy-store.h"
#include "host/registry/registry.h"
#include "protocol/policy/explain.h"

namespace postern::host {

class Decisions {
 public:
  // Outlives this.
  explicit Decisions(const PolicyStore& store) : store(store) {}
  KJ_DISALLOW_COPY(Decisions);

  void setBlocked(kj::StringPtr vm, bool blocked);
  bool isBlockedByHand(kj::StringPtr vm) const { return byHand.find(vm) != nullptr; }
  bool isBlockedByPolicy(kj::StringPtr vm) const;

  // What a caller on the host asks of a VM. `path` is canonical, and there for file calls alone.
  FileDecision decide(const LocalCaller& caller, const VmRecord& vm, kj::StringPtr call,
                      kj::Maybe<kj::StringPtr> path = nullptr) const;
  // admin.*
  policy::Decision decideOnHost(const LocalCaller& caller, kj::StringPtr call) const;
  // What a guest asks; `to` is null for a service of the host.
  policy::Decision decideService(const VmRecord& from, kj::Maybe<const VmRecord&> to, kj::StringPtr service) const;
  // Whether the caller may use any service of the VM.
  FileDecision decideAnyService(const LocalCaller& caller, const VmRecord& vm) const;

  policy::Advice advise(const LocalCaller& caller, kj::Maybe<const VmRecord&> vm, kj::StringPtr call,
                        kj::Maybe<kj::StringPtr> path = nullptr) const;
  // For a person, whoever asks: text, and whether it is allowed.
  struct Explained {
    kj::String text;
    bool allowed;
  };
  Explained explain(const policy::Request& request) const;
  // What a session decides by for those of `calls` that are file calls (file-grants.h).
  kj::Array<const capnp::word> fileGrantsFor(const LocalCaller& caller, const VmRecord& vm,
                                             kj::ArrayPtr<const kj::String> calls, kj::StringPtr path) const;
  // Whether the caller may know that the VM exists.
  bool isVisible(const LocalCaller& caller, const VmRecord& vm) const;

  const policy::Policy& policy() const { return store.current(); }

 private:
  const PolicyStore& store;
  kj::HashMap<kj::String, kj::Own<policy::Port>> byHand;

  // If the verdict is one of rules: the port that denies before them.
  kj::Maybe<const policy::Port&> findBlocked(const policy::Request& request, policy::Reason verdict) const;
  policy::Decision decide(const policy::Request& request) const;
};

// The record as policy wants it, which refers to it; both outlive the use.
class PolicyVm {
 public:
  explicit PolicyVm(const VmRecord& record);
  policy::Vm get() const { return {record.name, tags}; }

 private:
  const VmRecord& record;
  kj::Array<kj::StringPtr> tags;
};

// "service.*": whoever may use any of a VM's services may ask for their names.
constexpr kj::StringPtr ANY_SERVICE = "service.*"_kj;
constexpr kj::StringPtr SERVICE_PREFIX = "service."_kj;

}  // namespace postern::host
