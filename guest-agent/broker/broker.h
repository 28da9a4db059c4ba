#pragma once
// Broker: the agent's privileged half, on the broker's loop. It takes the requests of broker-wire.h from one agent at a
// time and does what they say within fixed bounds. The agent speaks with the host and may have been taken over by it,
// so that nothing it sends is believed: whatever is not a well-formed request in its turn ends the service to this
// agent, and what is well-formed is decided again here.
//
// What an agent that was taken over gets from here: the link's transport, the outcome of probes that run as itself, the
// hooks and power actions which the guest's own policy allows, the files that it allows to be copied, connections to
// the services that it exports and allows, and lines to the users' terminals.
//
// Children are this class's own (children.h); the process uses neither SIGCHLD nor kj's onChildExit.

#include <kj/async-unix.h>
#include <kj/function.h>
#include <kj/vector.h>

#include <set>

#include "guest-agent/broker/broker-client.h"
#include "guest-agent/files/opener-start.h"
#include "guest-agent/files/running-openers.h"
#include "guest-agent/power/power-way.h"
#include "guest-agent/services/service-opener.h"
#include "protocol/transfer/limits.h"
#include "transport/children/children.h"

namespace postern::guest {

// Requests that are unanswered at one time. Four probes, a connect, a power request's step, and room.
constexpr size_t MAX_BROKER_REQUESTS = 16;
// Openers of files that run at one time: of the transfers that an agent has, and of as many that have just been cut.
constexpr size_t MAX_OPENERS = size_t(2) * transfer::MAX_TRANSFERS;
// Services that are being connected to at one time, beside all other requests.
constexpr size_t MAX_SERVICE_REQUESTS = 1024;
// The longest a probe may be asked to run.
constexpr auto MAX_PROBE_TIME = 30 * kj::SECONDS;

struct BrokerOptions {
  // How a probe's process is started, the probe's name added as the last argument: {"/proc/self/exe", "--probe"}.
  kj::Array<kj::String> probeCommand;
  // Whom probes run as, when this process is root; null: as this process.
  kj::Maybe<Identity> probeIdentity;

  kj::String hooksFolder;
  kj::Duration hookTime = 60 * kj::SECONDS;
  kj::Own<PowerWay> power;
  // Beyond it a shutdown or restart that was started has not happened.
  kj::Duration powerTime = POWER_HAPPENS_WITHIN;
  // {"/usr/bin/wall"}; empty: users are not told.
  kj::Array<kj::String> tellCommand;

  // The guest's policy, as the broker itself has read it: why the caller may not make the call, or null. The caller is
  // text that parseCallerText() takes.
  kj::Function<kj::Maybe<kj::String>(kj::StringPtr call, kj::StringPtr caller)> refuse;
  // How an opener is started: {"/proc/self/exe", "--opener"}; and what the policy and the user database say of an
  // order.
  kj::Array<kj::String> openerCommand;
  PlanFiles planFiles;
  // The same of a connection to a service.
  PlanService planService;
  // As BrokerClient's.
  kj::Function<kj::Promise<Connected>()> connect;
  kj::Function<kj::Promise<bool>()> enrolled;
};

// Why a service ended.
struct AgentGone {};  // it closed its end, or died
struct AgentBrokeRule {
  kj::String text;  // for the log
};

class Broker final : private kj::TaskSet::ErrorHandler {
 public:
  Broker(kj::UnixEventPort& port, BrokerOptions options);
  ~Broker() noexcept(false);
  KJ_DISALLOW_COPY(Broker);

  // Serves the agent at the other end of a SOCK_SEQPACKET socket until it is gone or breaks a rule; then everything
  // that was started for it is killed (a power action that was started goes on), and the socket is closed. Dropping the
  // promise does the same.
  kj::Promise<kj::OneOf<AgentGone, AgentBrokeRule>> serve(kj::AutoCloseFd socket);

  // Policy and services are others now, or may be: what was started for an agent and would not be started as it is any
  // more is ended.
  void configurationChanged();

 private:
  class Service;
  // A power action that was started, or is being started, whatever becomes of who asked.
  struct Started {
    PowerAction action;
    bool known = false;    // that it was
    kj::TimePoint counts;  // until when; once it is known
    kj::Vector<kj::Own<kj::PromiseFulfiller<kj::Maybe<kj::String>>>> waiting;
  };

  kj::UnixEventPort& port;
  BrokerOptions options;
  Children children;
  Children openers;  // apart, so that files on a dead file system keep no hook and no probe from being started
  Children programs;
  std::set<Service*> services;  // of the agents that there are
  kj::Maybe<Started> started;
  kj::TaskSet starting;

  kj::Promise<kj::Maybe<kj::String>> power(PowerAction action, kj::StringPtr caller);
  void forgetWhatDidNotHappen();
  void startEnded(kj::Maybe<kj::String> failure);
  void taskFailed(kj::Exception&& exception) override;
};

// A socket pair for the two: close-on-exec, non-blocking.
struct BrokerSockets {
  kj::AutoCloseFd broker;
  kj::AutoCloseFd agent;
};
BrokerSockets newBrokerSockets();

// The agent's half. `port` outlives the client.
kj::Own<BrokerClient> newBrokerClient(kj::AutoCloseFd socket, kj::UnixEventPort& port);

}  // namespace postern::guest
