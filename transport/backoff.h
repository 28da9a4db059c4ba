#pragma once
// Backoff: how long to wait before the next attempt. The bound doubles from `first` to `max` with each failure; a
// delay is drawn evenly from the upper half of the bound, [bound/2, bound], so that many guests that lost one host do
// not come back in one moment, and no delay is ever over `max` or under `first`/2. Waits for nothing itself. An owner
// has one for failed connects and one for refused handshakes: a success of the first says nothing about the second.

#include <kj/time.h>

#include "protocol/random.h"

namespace postern {

class Backoff {
 public:
  // 0 < first <= max. `random` outlives this.
  Backoff(kj::Duration first, kj::Duration max, Random& random);

  // The delay after one more failure.
  [[nodiscard]] kj::Duration next();
  // After a success: the next failure starts at `first` again.
  void reset();

 private:
  const kj::Duration first;
  const kj::Duration max;
  Random& random;
  kj::Duration bound;
};

// The two that a connecting end has, with the numbers of protocol/limits.h.
Backoff newConnectBackoff(Random& random);  // nobody answered: soon again, up to 2 s
Backoff newRefusedBackoff(Random& random);  // the peer was there and refused: a person must mend it, up to 30 s

}  // namespace postern
