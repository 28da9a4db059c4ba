#include "host/cli/transfer-wait.h"

#include "host/cli/quantity.h"

namespace postern::cli {

namespace {

// Whether anything has moved.
class StallClock {
 public:
  StallClock(World& world, const TransferWait& wait) : world(world), wait(wait), since(world.now()) {}

  void look(const client::TransferProgress& progress) {
    auto sum =
        progress.sentBytes + progress.doneBytes + progress.doneEntries + progress.failures + (progress.counted ? 1 : 0);
    if (sum != last) {
      last = sum;
      since = world.now();
    }
    KJ_IF_MAYBE (limit, wait.stalls) {
      if (world.now() - since < *limit) return;
      fail(client::FailureKind::TIMED_OUT, kj::str(wait.vm, ": nothing moved for ", describeDuration(*limit)));
    }
  }

 private:
  World& world;
  const TransferWait& wait;
  uint64_t last = 0;
  kj::TimePoint since;
};

client::FileOutcome follow(Invocation& run, client::FileTransfer& transfer, const TransferWait& wait,
                           kj::Function<void()>& during) {
  kj::Maybe<client::FileOutcome> outcome;
  auto over = transfer.whenOver().then([&](client::FileOutcome&& value) { outcome = kj::mv(value); }).fork();
  StallClock clock(run.world, wait);
  while (outcome == nullptr) {
    run.awaitForever(over.addBranch().exclusiveJoin(run.world.timer().afterDelay(wait.tick)), wait.vm);
    during();
    if (outcome == nullptr) clock.look(transfer.progress());
  }
  during();
  return kj::mv(KJ_ASSERT_NONNULL(outcome));
}

void stop(Invocation& run, client::FileTransfer& transfer, kj::Duration undo) {
  auto ended = transfer.cancel().then([]() { return true; });
  auto late = run.world.timer().afterDelay(undo).then([]() { return false; });
  if (!ended.exclusiveJoin(kj::mv(late)).wait(run.world.waitScope())) transfer.release();
}

}  // namespace

client::FileOutcome waitForTransfer(Invocation& run, client::FileTransfer& transfer, const TransferWait& wait,
                                    kj::Function<void()> during) {
  try {
    return follow(run, transfer, wait, during);
  } catch (...) {
    stop(run, transfer, wait.undo);
    throw;
  }
}

}  // namespace postern::cli
