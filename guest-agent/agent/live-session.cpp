#include "guest-agent/agent/live-session.h"

#include "guest-agent/log/log.h"
#include "protocol/limits.h"

namespace postern::guest {

namespace {

kj::Duration bounded(uint32_t milliseconds) {
  auto interval = int64_t(milliseconds) * kj::MILLISECONDS;
  return interval < MIN_HEARTBEAT ? MIN_HEARTBEAT : interval > MAX_HEARTBEAT ? MAX_HEARTBEAT : interval;
}

kj::ForkedPromise<void> newFulfiller(kj::Own<kj::PromiseFulfiller<void>>& fulfiller) {
  auto pair = kj::newPromiseAndFulfiller<void>();
  fulfiller = kj::mv(pair.fulfiller);
  return pair.promise.fork();
}

}  // namespace

LiveSession::LiveSession(kj::Own<Session> sessionParam, schema::Guest::Client bootstrap, HeartbeatSource& source,
                         Consumers& consumers, kj::Timer& timer)
    : source(source),
      timer(timer),
      session(kj::mv(sessionParam)),
      rpc(*session, Role::GUEST, kj::mv(bootstrap),
          [this](kj::StringPtr text) {
            if (!session->isOver()) logWarning("call-failed", text);
          }),
      host(rpc.peer().castAs<schema::Host>()),
      uplink(consumers.use(*session, host)),
      renewalDue(newFulfiller(renewalFulfiller)),
      next(timer.now()),
      beating(beat().eagerlyEvaluate([this](kj::Exception&&) {
        if (!session->isOver()) session->breakOff(CloseCode::TIMED_OUT, HEARTBEAT_LOST);
      })) {
  source.gaps.skip();
}

LiveSession::~LiveSession() noexcept(false) {}

kj::Promise<SessionEnd> LiveSession::onEnd() {
  return session->onEnd();
}

kj::Promise<void> LiveSession::beat() {
  return timer.atTime(next).then([this]() { return sendHeartbeat(); }).then([this]() {
    if (session->isRenewalDue()) renewalFulfiller->fulfill();
    auto now = timer.now();
    next += source.interval;
    if (next < now) next = now;
    return beat();
  });
}

kj::Promise<void> LiveSession::sendHeartbeat() {
  auto lag = source.clocks.monotonic() - (next - kj::origin<kj::TimePoint>());
  auto request = host.heartbeatRequest(capnp::MessageSize{40, 0});
  request.setSequence(++source.sequence);
  request.setIntervalMilliseconds(static_cast<uint32_t>(source.interval / kj::MILLISECONDS));
  auto microseconds = lag / kj::MICROSECONDS;
  request.setLoopLagMicroseconds(static_cast<uint32_t>(microseconds < 0 ? 0 : kj::min(microseconds, 0xffffffff)));
  source.vitals.fill(request);
  auto state = source.state();
  if (source.gaps.sawGap(source.interval) && state == schema::Heartbeat::State::RUNNING) {
    state = schema::Heartbeat::State::RESUMED;
  }
  request.setState(state);
  request.setPolicyHash(kj::arrayPtr(source.policyHash.data(), source.policyHash.size()));
  request.setAgentVersion(POSTERN_VERSION);
  auto late = timer.afterDelay(limits::PING_DEADLINE).then([]() -> kj::Promise<void> {
    return KJ_EXCEPTION(OVERLOADED, "no answer");
  });
  lastAnswer = nullptr;
  return request.send()
      .then([this](capnp::Response<schema::Host::HeartbeatResults> answer) {
        answered(answer.getIntervalMilliseconds());
        lastAnswer = kj::mv(answer);
      })
      .exclusiveJoin(kj::mv(late));
}

void LiveSession::answered(uint32_t intervalMilliseconds) {
  auto wanted = bounded(intervalMilliseconds);
  if (wanted == source.interval) return;
  source.interval = wanted;
  logInfo("heartbeat-interval", kj::str("the host wants a heartbeat each ", wanted / kj::MILLISECONDS, " ms"));
}

kj::Promise<void> LiveSession::sayGoodbye(schema::Goodbye why) {
  auto request = host.goodbyeRequest();
  request.setWhy(why);
  return request.send()
      .ignoreResult()
      .catch_([](kj::Exception&&) {})
      .exclusiveJoin(timer.afterDelay(limits::CLOSE_LINGER));
}

kj::Promise<void> LiveSession::stop(schema::Goodbye why) {
  return sayGoodbye(why).then([this]() { return session->close(CloseCode::GOODBYE); });
}

}  // namespace postern::guest
