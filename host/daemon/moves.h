#pragma once
// Moves: what makes a VM another host's, and another host's this one's. Files and keys only: the Daemon ends the VM's
// session process before depart(), and starts it, or what is shown in its place, after each step.
//
// Guarantees:
//  - what was sealed is on the disk before the VM is inactive, and is kept until it is back or removed: a crash at any
//    moment leaves a VM that is here, or one that is moved and whose export can be had again;
//  - the VM is inactive before anybody has the export, so that two hosts never have it active by one;
//  - each export has a greater number than all moves of the VM before it that this host knows of, and one that is not
//    greater is not taken: an export is good once.
// It is the one place where posternd reads a VM's keys.

#include <kj/one-of.h>

#include "host/control/control.capnp.h"
#include "host/daemon/policy-store.h"
#include "host/move/vm-export.h"
#include "host/registry/registry.h"

namespace postern::host {

class Moves {
 public:
  struct NotDone {
    schema::Failure::Kind kind;
    kj::String text;
  };
  template <typename T>
  using Outcome = kj::OneOf<T, NotDone>;

  // What is referred to outlives this; `keyFile` is made when it is first wanted.
  Moves(Registry& registry, PolicyStore& policy, kj::StringPtr keyFile, Random& random)
      : registry(registry), policy(policy), keyFile(keyFile), random(random) {}

  // To show.
  Outcome<kj::String> hostKey();

  // Null: `untrustedTo` is another host's key, and the VM is here.
  kj::Maybe<NotDone> whyNotDepart(const VmRecord& record, kj::StringPtr untrustedTo);
  // Gives the export. No session process of the VM runs.
  Outcome<kj::String> depart(const VmRecord& record, kj::StringPtr to);
  // The export of a VM that was moved to that host, once more.
  Outcome<kj::String> departedBefore(const VmRecord& record, kj::StringPtr to);
  // The VM is here again.
  kj::Maybe<NotDone> cancel(const VmRecord& record);

  struct Arrival {
    kj::StringPtr untrustedExport;
    kj::StringPtr name;       // the VM that it has to be; empty: any
    kj::StringPtr from;       // the host that it has to come from; empty: any
    kj::StringPtr transport;  // empty: the one that a VM has that comes back
    bool takesGrants = false;
  };
  // Opened, and what was asked of it is so.
  Outcome<OpenedExport> open(const Arrival& arrival);
  // The VM is here. Gives the grants that were taken.
  Outcome<kj::String> arrive(OpenedExport opened, const Arrival& arrival);

 private:
  Registry& registry;
  PolicyStore& policy;
  const kj::StringPtr keyFile;
  Random& random;

  kj::String grantsToCarry(kj::StringPtr vm) const;
  Outcome<VmRecord> recordOf(const VmExport& vm, kj::StringPtr transport) const;
  Outcome<kj::String> putGrants(const VmExport& vm, bool wanted, bool isNew);
};

}  // namespace postern::host
