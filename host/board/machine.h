#pragma once
// Which boot of this machine, and which process: what tells one writer of the board from another that has the same pid.

#include <kj/common.h>
#include <stdint.h>
#include <sys/types.h>

#include <array>

namespace postern::host {

// /proc/sys/kernel/random/boot_id; all zero where /proc does not tell.
std::array<uint8_t, 16> machineBootId();

// Field 22 of /proc/self/stat, in clock ticks since boot; 0 where /proc does not tell.
uint64_t ownStartTicks();

}  // namespace postern::host
