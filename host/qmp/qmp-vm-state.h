#pragma once
// QmpVmState: what is known of a VM from QEMU's words, in order: which of them are news. Guarantees that a pause or an
// end that was said by an event, by an answer and by a socket that closed is one pause and one end, and that a reset is
// one though QEMU says it again: firmware that begins finds the machine used, and resets it once more by itself.

#include <kj/async.h>
#include <kj/time.h>
#include <kj/vector.h>

#include "host/qmp/qmp-message.h"
#include "host/qmp/qmp-watch.h"

namespace postern::host {

// From one RESET that was told to the next that is another one, unless the guest has opened its port between them. The
// firmware's comes 50 ms after the first, on a machine that is not overloaded.
constexpr auto ONE_RESET = 3 * kj::SECONDS;

class QmpVmState {
 public:
  // Both outlive this.
  QmpVmState(const kj::MonotonicClock& clock, QmpWatch::Handler& handler) : clock(clock), handler(handler) {}
  KJ_DISALLOW_COPY(QmpVmState);

  void heard(const QmpEvent& event);
  void answered(const QmpAnswer::Status& status);
  // Its process does not exist any more. Nothing if it was never heard of.
  void gone();

  kj::Promise<kj::String> whenOff(bool reset);

 private:
  enum class Known { NOTHING, RUNNING, PAUSED, OFF };
  using Waiters = kj::Vector<kj::Own<kj::PromiseFulfiller<kj::String>>>;

  const kj::MonotonicClock& clock;
  QmpWatch::Handler& handler;
  kj::Maybe<kj::TimePoint> resetTold;
  Known known = Known::NOTHING;
  kj::String lastWord;  // OFF: what said so
  Waiters offWaiters;
  Waiters resetWaiters;

  void setPaused(bool paused);
  void tellReset();
  void setOff(kj::String word);
  static void wake(Waiters& waiters, kj::StringPtr word);
};

}  // namespace postern::host
