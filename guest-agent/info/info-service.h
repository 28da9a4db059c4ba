#pragma once
// InfoService: GuestCalls.info on the agent's side. Each part that was asked for and is allowed is found out by a probe
// in a process of its own (probe.h), all side by side and each with its own deadline: a dead network file system delays
// nothing but the part that it is in. What a probe delivers is checked again here (info-check.h), since mounts and
// login records can be made by hostile users of the guest.
//
// Calls that come while a part is being found out share what comes out, so that at most one probe a part runs whatever
// the host does. Dropping a call leaves the probe to end by itself.

#include <kj/array.h>
#include <kj/async.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include "guest-agent/broker/broker-client.h"
#include "guest-agent/verdict.h"
#include "protocol/guest.capnp.h"

namespace postern::guest {

// How long a part may take. Probes need some 10 ms; a guest that is starved or emulated, a hundred times that.
constexpr auto INFO_PART_DEADLINE = 5 * kj::SECONDS;

class InfoService final : private kj::TaskSet::ErrorHandler {
 public:
  // `features` is what this agent can do, such as "power.suspend". `broker` and `timer` outlive this.
  InfoService(BrokerClient& broker, kj::Timer& timer, kj::Array<kj::String> features,
              kj::Duration partDeadline = INFO_PART_DEADLINE);
  KJ_DISALLOW_COPY(InfoService);

  // Serves one call: fills `results`, which outlives the promise. `decide` is asked for "info.os" and so on, before
  // this returns. Bits of `what` that mean nothing are ignored. Fails only when the broker is gone.
  kj::Promise<void> info(uint32_t what, Decide& decide, schema::GuestCalls::InfoResults::Builder results);

 private:
  struct Finding;
  struct Part {
    explicit Part(Probe probe) : probe(probe) {}
    Probe probe;
    bool running = false;
    kj::Vector<kj::Own<kj::PromiseFulfiller<kj::Own<Finding>>>> waiting;
  };

  BrokerClient& broker;
  kj::Timer& timer;
  kj::Array<kj::String> features;
  kj::Duration partDeadline;
  Part parts[4] = {Part(Probe::OS), Part(Probe::NETWORK), Part(Probe::FILESYSTEMS), Part(Probe::USERS)};
  kj::TaskSet probes;

  kj::Promise<kj::Own<Finding>> find(Part& part);
  kj::Promise<void> runProbe(Part& part);
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::guest
