#include "host/cli/invocation.h"

#include "host/cli/quantity.h"

namespace postern::cli {

namespace {

using client::FailureKind;

kj::String ownerOf(kj::StringPtr from) {
  return from == "posternd"_kj ? kj::str(from) : kj::str("the session of ", from);
}

template <typename T>
T valueOf(client::Outcome<T> outcome, kj::StringPtr vm) {
  KJ_SWITCH_ONEOF(outcome) {
    KJ_CASE_ONEOF(failed, client::Failure) {
      throw CommandFailure{Invocation::about(vm, kj::mv(failed))};
    }
    KJ_CASE_ONEOF(value, T) {
      return kj::mv(value);
    }
  }
  KJ_UNREACHABLE;
}

}  // namespace

void fail(FailureKind kind, kj::String text) {
  throw CommandFailure{client::failure(kind, kj::mv(text))};
}

client::ControlClient& Invocation::control() {
  KJ_IF_MAYBE (client, connected) {
    return **client;
  }
  auto outcome = await(world.connectControl(paths.controlSocket), "posternd");
  return *connected.emplace(valueOf(kj::mv(outcome), ""));
}

kj::Own<client::VmClient> Invocation::openVm(kj::StringPtr vm, kj::ArrayPtr<const kj::StringPtr> calls,
                                             kj::StringPtr path) {
  return valueOf(await(control().openVm(vm, calls, path), "posternd"), vm);
}

client::Failure Invocation::about(kj::StringPtr vm, client::Failure failure) {
  auto prefix = kj::str(vm, ": ");
  if (vm.size() > 0 && !failure.text.startsWith(prefix)) failure.text = kj::str(prefix, failure.text);
  return failure;
}

void Invocation::waitFor(kj::Promise<void> promise, kj::StringPtr from, kj::Maybe<kj::Duration> limit) {
  enum class End { ANSWER, TIMEOUT, INTERRUPTED };
  auto ended = promise.then([]() { return End::ANSWER; });
  KJ_IF_MAYBE (duration, limit) {
    ended = ended.exclusiveJoin(world.timer().afterDelay(*duration).then([]() { return End::TIMEOUT; }));
  }
  ended = ended.exclusiveJoin(world.whenInterrupted().then([]() { return End::INTERRUPTED; }));
  kj::Maybe<End> end;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { end = ended.wait(world.waitScope()); })) {
    throw CommandFailure{client::failureOf(*exception, ownerOf(from))};
  }
  switch (KJ_ASSERT_NONNULL(end)) {
    case End::ANSWER:
      return;
    case End::TIMEOUT:
      fail(FailureKind::TIMED_OUT,
           kj::str(ownerOf(from), " did not answer within ", describeDuration(KJ_ASSERT_NONNULL(limit))));
    case End::INTERRUPTED:
      fail(FailureKind::INTERRUPTED, kj::str("interrupted"));
  }
}

void Invocation::sleepUntil(kj::TimePoint then) {
  auto now = world.now();
  if (then <= now) return;
  awaitForever(world.timer().afterDelay(then - now), "posternd");
}

}  // namespace postern::cli
