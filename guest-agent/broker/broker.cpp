#include "guest-agent/broker/broker.h"

#include <kj/debug.h>
#include <spdlog/spdlog.h>

#include "guest-agent/broker/broker-service.h"

namespace postern::guest {

namespace {

void tellChildren(kj::StringPtr line) {
  spdlog::warn("{}", line.cStr());
}

}  // namespace

Broker::Broker(kj::UnixEventPort& port, BrokerOptions options)
    : port(port),
      options(kj::mv(options)),
      children(port, tellChildren),
      openers(port, tellChildren),
      programs(port, tellChildren, MAX_SERVICE_PROGRAMS),
      starting(*this) {}
Broker::~Broker() noexcept(false) {}

kj::Promise<kj::OneOf<AgentGone, AgentBrokeRule>> Broker::serve(kj::AutoCloseFd socket) {
  auto service = kj::heap<Service>(*this, kj::mv(socket));
  auto promise = service->serve();
  return promise.attach(kj::mv(service));
}

void Broker::configurationChanged() {
  for (auto* service : services) service->configurationChanged();
}

kj::Promise<kj::Maybe<kj::String>> Broker::power(PowerAction action, kj::StringPtr caller) {
  using Failure = kj::Maybe<kj::String>;
  forgetWhatDidNotHappen();
  KJ_IF_MAYBE (current, started) {
    if (current->action != action) return Failure(kj::str(actionName(current->action), " is under way"));
    if (current->known) return Failure(nullptr);
  } else {
    KJ_IF_MAYBE (why, options.refuse(callName(action), caller)) {
      spdlog::warn("power-refused action={} caller={}: {}", actionName(action).cStr(), caller.cStr(), why->cStr());
      return Failure(kj::mv(*why));
    }
    spdlog::info("power action={} caller={}", actionName(action).cStr(), caller.cStr());
    started = Started{action, false, port.getTimer().now(), {}};
    starting.add(kj::evalNow([&] {
                   return options.power->start(action, children);
                 }).catch_([](kj::Exception&& exception) -> Failure {
                     return kj::str(exception.getDescription());
                   }).then([this](Failure failure) { startEnded(kj::mv(failure)); }));
  }
  auto outcome = kj::newPromiseAndFulfiller<Failure>();
  KJ_ASSERT_NONNULL(started).waiting.add(kj::mv(outcome.fulfiller));
  return kj::mv(outcome.promise);
}

void Broker::forgetWhatDidNotHappen() {
  KJ_IF_MAYBE (current, started) {
    if (!current->known || port.getTimer().now() < current->counts) return;
    spdlog::warn("power-did-not-happen action={}", actionName(current->action).cStr());
    started = nullptr;
  }
}

void Broker::startEnded(kj::Maybe<kj::String> failure) {
  auto& current = KJ_ASSERT_NONNULL(started);
  for (auto& one : current.waiting) {
    one->fulfill(failure.map([](kj::String& text) { return kj::str(text); }));
  }
  current.waiting.clear();
  KJ_IF_MAYBE (why, failure)
    spdlog::error("power-failed action={}: {}", actionName(current.action).cStr(), why->cStr());
  current.known = true;
  current.counts = port.getTimer().now() + options.powerTime;
  // A suspend ends; the next one is another.
  if (failure != nullptr || current.action == PowerAction::SUSPEND) started = nullptr;
}

void Broker::taskFailed(kj::Exception&& exception) {
  spdlog::error("power-failed: {}", exception.getDescription().cStr());
}

}  // namespace postern::guest
