#pragma once
// TransferLimits: what the file transfers of one session process share: how many there may be, and for each rule of the
// host's policy, and for the VM's port, how fast all that pass it may be together. Limits delay; only one transfer too
// many is refused.
//
// A rule's bucket outlives the transfers that use it, so that a new one does not begin with a full burst again. The
// numbers of the newest grant are the ones that count. One loop; outlives its uses.

#include <kj/async.h>
#include <kj/map.h>
#include <kj/memory.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include "host/session/session-control.capnp.h"
#include "host/session/token-bucket.h"

namespace postern::host {

// Rules that are remembered beside those in use.
constexpr size_t MAX_IDLE_RULES = 256;

class TransferLimits {
 public:
  explicit TransferLimits(kj::Timer& timer) : timer(timer) {}
  KJ_DISALLOW_COPY(TransferLimits);

  class Use;
  // For one transfer, as long as it lives. `callerRate`: what its caller asks for at most; 0: nothing. Or a line for a
  // person: there are too many.
  kj::OneOf<kj::Own<Use>, kj::String> begin(schema::Grant::Reader grant, schema::FileGrant::Reader files,
                                            uint64_t callerRate);

 private:
  // schema::Limit's.
  struct Numbers {
    uint64_t rate = 0;
    uint64_t burst = 0;
    uint64_t peak = 0;
    uint64_t open = 0;
  };
  struct Gate {
    Numbers numbers;
    TokenBucket bucket;
    TokenBucket peak;
    unsigned open = 0;

    void set(const Numbers& now);
    // Takes a place, unless all are taken.
    bool enter();
    kj::Duration take(uint64_t bytes, kj::TimePoint now);
    bool isIdle(kj::TimePoint now) const { return open == 0 && bucket.isFull(now) && peak.isFull(now); }
  };

  kj::Timer& timer;
  unsigned transfers = 0;
  Gate port;
  kj::HashMap<kj::String, kj::Own<Gate>> rules;

  static Numbers numbersOf(schema::Limit::Reader limit);
  Gate& gateOf(kj::StringPtr rule);
};

class TransferLimits::Use {
 public:
  // By begin().
  Use(TransferLimits& limits, schema::FileGrant::Reader files, uint64_t callerRate);
  ~Use() noexcept(false);
  KJ_DISALLOW_COPY(Use);

  // What follows is paced by this rule's limits. Or a line for a person: its transfers are all under way.
  kj::Maybe<kj::String> enter(kj::StringPtr rule);
  // When so many bytes of content may go on.
  kj::Promise<void> pace(uint64_t bytes);

 private:
  friend class TransferLimits;
  struct Rule {
    kj::String id;
    Numbers numbers;
    kj::Maybe<Gate&> gate;  // once entered; in use, so it stays
  };

  TransferLimits& limits;
  kj::Vector<Rule> rules;  // that have limits
  kj::Maybe<Gate&> current;
  bool inPort = false;
  TokenBucket own;
};

}  // namespace postern::host
