#pragma once
// ServiceTerms: under which terms a policy lets a channel to a service pass: its rule, that rule's limits, and where it
// is mirrored to; and how a session process is told of them (session-control.capnp, Flow and ServiceGrant).

#include <kj/io.h>
#include <kj/timer.h>

#include "host/daemon/damper.h"
#include "host/daemon/records.h"
#include "host/session/session-control.capnp.h"
#include "protocol/policy/policy.h"

namespace postern::host {

struct ServiceTerms {
  kj::String rule;
  policy::Limits limits;
  struct MirrorTerms {
    kj::String path;
    bool full;
  };
  kj::Maybe<MirrorTerms> mirror;

  // Of an allowed decision.
  explicit ServiceTerms(const policy::Decision& decision);
  // For the audit: "unix:/run/ids.sock full"; empty: none.
  kj::String mirrorText() const;
};

// Mirrors: the connections to inspection appliances, each made when a channel or a grant begins. posternd connects,
// since it may, and hands the descriptor on. It never waits: an appliance that does not listen, or whose queue is full,
// is lost for that channel, which goes on, and that is told (event `mirror-lost`), damped by appliance.
class Mirrors {
 public:
  Mirrors(kj::Timer& timer, Records& records) : records(records), damper(timer, 1, 1) {}

  // Null: it cannot be reached. `vm` is whose channels they are.
  kj::Maybe<kj::AutoCloseFd> connect(const ServiceTerms::MirrorTerms& mirror, kj::StringPtr vm, kj::StringPtr rule);
  // Connects, if the terms have a mirror, and writes it where `init` says. `who` and `to` are for the appliance.
  template <typename Init>
  void write(const ServiceTerms& terms, kj::StringPtr vm, kj::StringPtr who, kj::StringPtr to, Init&& init) {
    KJ_IF_MAYBE (mirror, terms.mirror) fill(*mirror, vm, terms.rule, who, to, init());
  }

 private:
  Records& records;
  Damper damper;

  void fill(const ServiceTerms::MirrorTerms& mirror, kj::StringPtr vm, kj::StringPtr rule, kj::StringPtr who,
            kj::StringPtr to, schema::Mirror::Builder out);
};

}  // namespace postern::host
