#pragma once
// TransferLimits: what the file transfers of one session process share beside the VM's port and the rules of the host's
// policy (port-limits.h): how many there may be, and what a caller asks for himself. Limits delay; only one transfer
// too many is refused. One loop; outlives its uses.
//
// A transfer holds no more than its channel's credit lets in, so `bytes` is not looked at, unless it is a bound of 0.

#include <kj/async.h>
#include <kj/memory.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "host/session/port-limits.h"

namespace postern::host {

class TransferLimits {
 public:
  explicit TransferLimits(PortLimits& limits) : limits(limits) {}
  KJ_DISALLOW_COPY(TransferLimits);

  class Use;
  // For one transfer, as long as it lives. `callerRate`: what its caller asks for at most; 0: nothing. Or a line for a
  // person: there are too many.
  kj::OneOf<kj::Own<Use>, kj::String> begin(uint64_t callerRate);

 private:
  PortLimits& limits;
  unsigned transfers = 0;
};

class TransferLimits::Use {
 public:
  // By begin().
  Use(TransferLimits& transfers, kj::Own<LimitGate> port, uint64_t callerRate);
  ~Use() noexcept(false);
  KJ_DISALLOW_COPY(Use);

  // What follows is paced by this rule's limits. Or a line for a person: its transfers are all under way.
  kj::Maybe<kj::String> enter(kj::StringPtr rule);
  // When so many bytes of content may go on.
  kj::Promise<void> pace(uint64_t bytes);

 private:
  struct Rule {
    kj::String id;
    kj::Own<LimitPlace> place;
  };

  TransferLimits& transfers;
  LimitPlace port;
  kj::Own<LimitGate> own;
  kj::Vector<Rule> rules;  // that were entered
  kj::Maybe<LimitGate&> current;
};

}  // namespace postern::host
