#include "guest-agent/agent/guest-server.h"

namespace postern::guest {

namespace {

// What a Refusal's fields hold at most, so that a denial never makes a large message.
constexpr size_t MAX_DETAIL_BYTES = 1024;
constexpr size_t MAX_SUGGESTION_BYTES = 4096;

kj::StringPtr front(kj::StringPtr text, size_t most, kj::String& room) {
  if (text.size() <= most) return text;
  while (most > 0 && (text[most] & 0xc0) == 0x80) --most;
  room = kj::heapString(text.slice(0, most));
  return room;
}

void fill(schema::Refusal::Builder out, const Denial& denial) {
  kj::String room;
  out.setReason(schema::Refusal::Reason::DENIED);
  out.setDetail(front(denial.detail, MAX_DETAIL_BYTES, room));
  out.setRule(denial.rule);
  out.setSuggestion(front(denial.suggestion, MAX_SUGGESTION_BYTES, room));
}

class CallsServer final : public schema::GuestCalls::Server {
 public:
  CallsServer(const GuestServices& services, kj::String callerText)
      : services(services),
        text(kj::mv(callerText)),
        caller(parseCallerText(text)),
        decide([this](kj::StringPtr call) { return verdict(call); }) {}

 protected:
  kj::Promise<void> ping(PingContext context) override {
    context.releaseParams();
    KJ_IF_MAYBE (denial, verdict("ping")) fill(context.getResults().initRefusal(), *denial);
    return kj::READY_NOW;
  }

  kj::Promise<void> info(InfoContext context) override {
    context.allowCancellation();
    return services.info.info(context.getParams().getWhat(), decide, context.getResults());
  }

  kj::Promise<void> power(PowerContext context) override {
    context.allowCancellation();
    auto params = context.getParams();
    return services.power.power(text, decide, params.getRequest(), params.getObserver(), context.getResults())
        .then([this](kj::Maybe<kj::Own<PowerService::Interest>> interest) {
          KJ_IF_MAYBE (i, interest) {
            // One a caller is enough to keep an operation; a caller that repeats itself must not pile them up.
            if (interests.size() >= MAX_OBSERVERS) interests.clear();
            interests.add(kj::mv(*i));
          }
        });
  }

 private:
  const GuestServices& services;
  const kj::String text;
  const kj::Maybe<VouchedCaller> caller;
  Decide decide;
  kj::Vector<kj::Own<PowerService::Interest>> interests;

  kj::Maybe<Denial> verdict(kj::StringPtr call) {
    KJ_IF_MAYBE (known, caller) return services.policy->decide(*known, call);
    return GuestPolicy::unknownCaller();
  }
};

class Server final : public schema::Guest::Server {
 public:
  explicit Server(const GuestServices& services) : services(services) {}

 protected:
  kj::Promise<void> callsFor(CallsForContext context) override {
    // The empty line is nobody's (power/caller-text.h).
    kj::String text;
    KJ_IF_MAYBE (known, callerText(context.getParams().getCaller())) text = kj::mv(*known);
    context.releaseParams();
    context.getResults().setCalls(kj::heap<CallsServer>(services, kj::mv(text)));
    return kj::READY_NOW;
  }

 private:
  const GuestServices& services;
};

}  // namespace

schema::Guest::Client newGuestServer(const GuestServices& services) {
  return kj::heap<Server>(services);
}

}  // namespace postern::guest
