#pragma once
// A VM's port as the status board shows it: its counters and its block switch, with types instead of words (layout.h,
// PortCounter). Texts are bounded and printable in both directions.

#include <kj/string.h>
#include <stdint.h>

#include <array>

#include "host/board/layout.h"

namespace postern::host {

struct BoardPort {
  bool blockedByPolicy = false;
  bool blockedByHand = false;
  uint64_t opened = 0;
  uint64_t denied = 0;
  uint64_t refused = 0;
  uint64_t active = 0;
  uint64_t bytesOut = 0;
  uint64_t bytesIn = 0;
  uint64_t messagesOut = 0;
  uint64_t messagesIn = 0;
  uint64_t throttledNanoseconds = 0;
  uint64_t mirrorDropped = 0;
  kj::String lastDenied;  // a rule's id, or a reason's word; empty: nothing was denied
};

using PortWords = std::array<uint64_t, board::PORT_WORDS>;
PortWords encodePort(const BoardPort& port);
// `untrusted` is a copy that nobody else writes. Any words are some port.
BoardPort decodePort(const PortWords& untrusted);

}  // namespace postern::host
