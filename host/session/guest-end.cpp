#include "host/session/guest-end.h"

#include <kj/debug.h>
#include <string.h>

#include "protocol/policy/names.h"

namespace postern::host {

namespace {

GuestCondition conditionOf(postern::schema::Heartbeat::State state) {
  switch (state) {
    case postern::schema::Heartbeat::State::STOPPING:
      return GuestCondition::STOPPING;
    case postern::schema::Heartbeat::State::FROZEN:
      return GuestCondition::FROZEN;
    case postern::schema::Heartbeat::State::RESUMED:
      return GuestCondition::RESUMED;
    case postern::schema::Heartbeat::State::RUNNING:
      break;
  }
  return GuestCondition::RUNNING;  // also for what a later version may say
}

Report reportOf(postern::schema::Heartbeat::Reader beat) {
  Report report;
  report.sequence = beat.getSequence();
  report.intervalMilliseconds = beat.getIntervalMilliseconds();
  report.bootIdHigh = beat.getBootIdHigh();
  report.bootIdLow = beat.getBootIdLow();
  report.uptimeMilliseconds = beat.getUptimeMilliseconds();
  report.agentUptimeMilliseconds = beat.getAgentUptimeMilliseconds();
  report.loopLagMicroseconds = beat.getLoopLagMicroseconds();
  report.load[0] = beat.getLoad1();
  report.load[1] = beat.getLoad5();
  report.load[2] = beat.getLoad15();
  report.memoryTotalKiB = beat.getMemoryTotalKiB();
  report.memoryAvailableKiB = beat.getMemoryAvailableKiB();
  report.condition = conditionOf(beat.getState());
  auto hash = beat.getPolicyHash();
  if (hash.size() == report.policyHash.size()) memcpy(report.policyHash.data(), hash.begin(), hash.size());
  auto version = beat.getAgentVersion();
  memcpy(report.agentVersion.data(), version.begin(), kj::min(version.size(), report.agentVersion.size() - 1));
  confine(report);
  return report;
}

kj::Maybe<ServiceQuestion> questionOf(postern::schema::Host::ConnectParams::Reader untrusted) {
  kj::StringPtr to = untrusted.getTo(), service = untrusted.getService();
  if (to != "host" && !policy::isVmName(to)) return nullptr;
  if (!policy::isServiceName(service)) return nullptr;
  return ServiceQuestion{kj::str(to), kj::str(service), {untrusted.getChannel(), untrusted.getCredit()}};
}

}  // namespace

struct GuestEnd::Failures final : public kj::TaskSet::ErrorHandler {
  explicit Failures(GuestEnd& end) : end(end) {}
  void taskFailed(kj::Exception&& exception) override {
    KJ_IF_MAYBE (h, end.handler) h->misfortune(exception.getDescription());
  }
  GuestEnd& end;
};

class GuestEnd::Server final : public postern::schema::Host::Server {
 public:
  explicit Server(GuestEnd& end) : end(end) {}

  kj::Promise<void> heartbeat(HeartbeatContext context) override {
    end.receive(context.getParams());
    // Its size is said, or each answer would have 8 KiB allocated and cleared: with a thousand VMs that counts.
    auto results = context.getResults(capnp::MessageSize{2, 0});
    KJ_IF_MAYBE (h, end.handler) results.setIntervalMilliseconds(h->heartbeatMilliseconds());
    return kj::READY_NOW;
  }
  kj::Promise<void> goodbye(GoodbyeContext context) override {
    end.receive(context.getParams().getWhy());
    return kj::READY_NOW;
  }
  // T106
  kj::Promise<void> connect(ConnectContext context) override {
    context.allowCancellation();
    kj::Maybe<ServiceQuestion> question;
    // What cannot be read is answered like all that is refused.
    (void)kj::runCatchingExceptions([&]() { question = questionOf(context.getParams()); });
    context.releaseParams();
    return end.ask(kj::mv(question)).then([context](bool isOpen) mutable {
      auto results = context.getResults(capnp::MessageSize{8, 0});
      if (!isOpen) results.initRefusal().setReason(postern::schema::Refusal::Reason::DENIED);
    });
  }

 private:
  GuestEnd& end;  // owns the RPC system that owns this
};

GuestEnd::GuestEnd(kj::Own<Session> session, const Confirmation& confirmation, kj::String peer, kj::Timer& timer,
                   Handler& handler)
    : sessionOwn(kj::mv(session)),
      confirmed(confirmation),
      peerText(kj::mv(peer)),
      timer(timer),
      handler(handler),
      watching(sessionOwn->onEnd()
                   .then([this](SessionEnd how) {
                     KJ_IF_MAYBE (h, this->handler) h->ended(*this, how);
                   })
                   .eagerlyEvaluate(nullptr)),
      failures(kj::heap<Failures>(*this)),
      questions(*failures) {}

GuestEnd::~GuestEnd() noexcept(false) {
  handler = nullptr;  // the end of RPC is no news here
}

void GuestEnd::start() {
  rpc = kj::heap<RpcConnection>(*sessionOwn, Role::HOST, kj::heap<Server>(*this), [this](kj::StringPtr text) {
    // What fails because the session has ended is no news.
    if (sessionOwn->isOver()) return;
    KJ_IF_MAYBE (h, handler) h->misfortune(text);
  });
  // A session without RPC is good for nothing: an agent that is well makes a new one.
  watchingRpc = KJ_ASSERT_NONNULL(rpc)
                    ->onDisconnect()
                    .then([this]() {
                      if (!sessionOwn->isOver()) sessionOwn->breakOff(CloseCode::PROTOCOL_ERROR, "RPC was aborted");
                    })
                    .eagerlyEvaluate([](kj::Exception&&) {});
}

postern::schema::Guest::Client GuestEnd::guest() {
  return KJ_REQUIRE_NONNULL(rpc)->peer().castAs<postern::schema::Guest>();
}

void GuestEnd::receive(postern::schema::Heartbeat::Reader beat) {
  auto now = timer.now();
  KJ_IF_MAYBE (last, passedOnAt) {
    if (now - *last < HEARTBEAT_SPACING) return;
  }
  passedOnAt = now;
  auto report = reportOf(beat);
  stopping = report.condition == GuestCondition::STOPPING;
  KJ_IF_MAYBE (h, handler) h->heartbeat(*this, report);
}

void GuestEnd::receive(postern::schema::Goodbye why) {
  if (goodbyeSaid != nullptr) return;
  if (why > postern::schema::Goodbye::SUSPEND) why = postern::schema::Goodbye::AGENT_STOPPED;
  goodbyeSaid = why;
  KJ_IF_MAYBE (h, handler) h->goodbye(*this, why);
}

// Calls of a guest outlive this by some turns of the loop: what is done for them does not.
kj::Promise<bool> GuestEnd::ask(kj::Maybe<ServiceQuestion> question) {
  auto answered = kj::newPromiseAndFulfiller<bool>();
  KJ_IF_MAYBE (h, handler) {
    questions.add(h->connect(*this, kj::mv(question)).then([fulfiller = kj::mv(answered.fulfiller)](bool open) mutable {
      fulfiller->fulfill(kj::mv(open));
    }));
    return kj::mv(answered.promise);
  }
  return kj::NEVER_DONE;  // another guest has taken its place, and its session is being closed
}

}  // namespace postern::host
