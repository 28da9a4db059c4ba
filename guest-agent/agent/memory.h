#pragma once
// Keeps the agent's resident memory small and flat for years.

#include <kj/timer.h>

namespace postern::guest {

// One arena; what is freed goes back to the system soon. Before the first allocation that matters.
void tuneMemory();

// Gives up the pages of code and constants that only the start has used, in the program and in its libraries: they are
// the files' own and come back when they run again. Once, when the first session stands.
void releaseStartupPages();

// The loop's timer for those who tidy up, such as BlockPool: what they wait for comes 30 s later than asked, so that
// they do not wake an agent that is idle but for its heartbeats at each of them.
class PatientTimer final : public kj::Timer {
 public:
  explicit PatientTimer(kj::Timer& timer) : timer(timer) {}

  kj::TimePoint now() const override { return timer.now(); }
  kj::Promise<void> atTime(kj::TimePoint time) override { return timer.atTime(time + PATIENCE); }
  kj::Promise<void> afterDelay(kj::Duration delay) override { return timer.afterDelay(delay + PATIENCE); }

 private:
  static constexpr auto PATIENCE = 30 * kj::SECONDS;
  kj::Timer& timer;
};

}  // namespace postern::guest
