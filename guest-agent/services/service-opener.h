#pragma once
// ServiceOpener: what the broker does for one agent's OpenService requests: it decides by its own policy and
// configuration, connects to the target or starts the program, says who connects where the target is to be told, and
// hands out the connected socket. It keeps none itself.
//
// A program ends with its channel: its standard input and output are one end of a socket pair, so that it sees the end
// when the agent closes the other; it has SERVICE_GRACE from when the agent cancels it, or is gone, or a new
// configuration would not start it again as it is.

#include <kj/async-unix.h>
#include <kj/function.h>

#include <map>

#include "guest-agent/broker/broker-wire.h"
#include "guest-agent/log/damped-log.h"
#include "guest-agent/services/service-plan.h"
#include "transport/children/children.h"
#include "transport/close-elsewhere.h"

namespace postern::guest {

using PlanService = kj::Function<kj::OneOf<ServicePlan, ServiceRefusal>(kj::StringPtr service, kj::StringPtr caller)>;

// Programs that serve connections at one time, those included that are about to end.
constexpr size_t MAX_SERVICE_PROGRAMS = 256;

class ServiceOpener final : private kj::TaskSet::ErrorHandler {
 public:
  // `programs` and `plan` outlive this.
  ServiceOpener(kj::UnixEventPort& port, Children& programs, PlanService& plan);
  ~ServiceOpener() noexcept(false);
  KJ_DISALLOW_COPY(ServiceOpener);

  struct Opened {
    StrangersFd socket;
    bool isProgram;
  };
  using Result = kj::OneOf<Opened, ServiceRefusal>;

  // Within SERVICE_CONNECT_DEADLINE. `number` is the request's, by which a program is cancelled; the request outlives
  // the promise.
  kj::Promise<Result> open(uint64_t number, const OpenServiceRequest& request);
  void cancel(uint64_t number);
  // Programs that would not be started again as they are end.
  void planAgain();

 private:
  struct Program {
    kj::String service;
    kj::String caller;
    kj::String identity;  // its plan's
    kj::Own<kj::PromiseFulfiller<void>> cancel;
  };

  kj::UnixEventPort& port;
  Children& programs;
  PlanService& plan;
  DampedLog opens;
  DampedLog refusals;
  std::map<uint64_t, Program> running;
  kj::TaskSet tasks;

  kj::Promise<Result> connect(const OpenServiceRequest& request, ServicePlan plan);
  Result connected(const OpenServiceRequest& request, const ServicePlan& plan, StrangersFd socket);
  kj::Promise<Result> start(uint64_t number, const OpenServiceRequest& request, const ServicePlan& plan);
  void watch(uint64_t number, const OpenServiceRequest& request, const ServicePlan& plan, kj::Promise<ChildEnd> end);
  bool isPlanned(kj::StringPtr service, kj::StringPtr caller, kj::StringPtr identity);
  Result refuse(const OpenServiceRequest& request, ServiceRefusal refusal);
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::guest
