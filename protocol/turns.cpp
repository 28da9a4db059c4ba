#include "protocol/turns.h"

namespace postern {

kj::Promise<void> afterTurns(unsigned turns) {
  return kj::evalLater([turns]() -> kj::Promise<void> {
    if (turns <= 1) return kj::READY_NOW;
    return afterTurns(turns - 1);
  });
}

}  // namespace postern
