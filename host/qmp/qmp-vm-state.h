#pragma once
// QmpVmState: what is known of a VM from QEMU's words, in order: which of them are news. Guarantees that a pause or an
// end that was said by an event, by an answer and by a socket that closed is one pause and one end.

#include <kj/async.h>
#include <kj/vector.h>

#include "host/qmp/qmp-message.h"
#include "host/qmp/qmp-watch.h"

namespace postern::host {

class QmpVmState {
 public:
  // `handler` outlives this.
  explicit QmpVmState(QmpWatch::Handler& handler) : handler(handler) {}
  KJ_DISALLOW_COPY(QmpVmState);

  void heard(const QmpEvent& event);
  void answered(const QmpAnswer::Status& status);
  // Its process does not exist any more. Nothing if it was never heard of.
  void gone();

  kj::Promise<kj::String> whenOff(bool reset);

 private:
  enum class Known { NOTHING, RUNNING, PAUSED, OFF };
  using Waiters = kj::Vector<kj::Own<kj::PromiseFulfiller<kj::String>>>;

  QmpWatch::Handler& handler;
  Known known = Known::NOTHING;
  kj::String lastWord;  // OFF: what said so
  Waiters offWaiters;
  Waiters resetWaiters;

  void setPaused(bool paused);
  void setOff(kj::String word);
  static void wake(Waiters& waiters, kj::StringPtr word);
};

}  // namespace postern::host
