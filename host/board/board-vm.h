#pragma once
// One VM as the status board shows it: what a writer puts in and a reader gets out, with types instead of bytes. Texts
// are bounded and printable in both directions (the codec sees to it), numbers of the guest are shown as it gave them.

#include <kj/string.h>
#include <kj/time.h>

#include <array>

#include "host/board/board-port.h"
#include "host/board/layout.h"
#include "host/health/health.h"
#include "protocol/keys.h"

namespace postern::host {

constexpr size_t MAX_BOARD_NAME_BYTES = sizeof(board::Slot::name);
constexpr size_t MAX_AGENT_VERSION_BYTES = sizeof(board::Slot::agentVersion);

// What the last heartbeat said.
struct GuestReport {
  kj::TimePoint at = kj::origin<kj::TimePoint>();  // when it came
  uint64_t sequence = 0;
  kj::Duration interval = 0 * kj::SECONDS;
  kj::Duration loopLag = 0 * kj::SECONDS;
  GuestState state = GuestState::RUNNING;
  std::array<kj::byte, 16> bootId{};
  kj::String agentVersion;
  kj::Duration uptime = 0 * kj::SECONDS;  // of the agent
  kj::Duration guestUptime = 0 * kj::SECONDS;
  std::array<uint32_t, 3> loadHundredths{};
  uint64_t memoryTotal = 0;
  uint64_t memoryAvailable = 0;
  std::array<kj::byte, 32> policyHash{};
};

struct BoardVm {
  kj::String name;
  VmId vm;
  Verdict verdict;
  board::Transport transport = board::TRANSPORT_NONE;
  bool linkUp = false;
  uint32_t sessionPid = 0;  // 0: no process
  uint64_t sessionCount = 0;
  kj::Maybe<GuestReport> report;
  // Its words are not behind the slot's lock: of another moment than the rest, perhaps. Filled in by BoardReader alone;
  // a writer puts it with updatePort().
  BoardPort port;
};

// To and from the bytes of a slot. What does not fit is cut (texts) or takes the largest value (numbers). `untrusted`
// is a copy that nobody else writes; null if it is no slot with a VM that this program understands.
board::Slot encodeSlot(const BoardVm& vm);
kj::Maybe<BoardVm> decodeSlot(const board::Slot& untrusted);

// CLOCK_MONOTONIC's nanoseconds and KJ's monotonic time are the same count.
uint64_t toMonotonicNs(kj::TimePoint time);
kj::TimePoint fromMonotonicNs(uint64_t ns);

}  // namespace postern::host
