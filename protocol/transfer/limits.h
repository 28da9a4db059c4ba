#pragma once
// Every number of file transfers that is policy, each with its reason. Both ends keep to them, and hold the other end
// to them.

#include <kj/time.h>
#include <stddef.h>
#include <stdint.h>

namespace postern::transfer {

// Content of one `data` frame: whole pages, and with its headers at most one full record.
constexpr size_t DATA_BYTES = size_t(60) << 10;
// Files of up to this travel inside their entry: no descriptor is passed for them.
constexpr size_t INLINE_BYTES = DATA_BYTES;
// What a base is compared by. Four frames, so that a frame is never split between what is the same and what is not;
// 32 bytes of hash a chunk are 0.013 % of a file.
constexpr size_t CHUNK_BYTES = 4 * DATA_BYTES;
constexpr size_t HASH_BYTES = 32;
constexpr size_t MAX_HASHES = 512;  // in one frame
// From this size a file is worth a round trip for sending only what differs, and what was interrupted is kept.
constexpr uint64_t DELTA_MIN_BYTES = uint64_t(1) << 20;

// The Cap'n Proto part of a frame: an entry with the longest name, target and attributes, with room.
constexpr size_t MAX_ATTRIBUTE_BYTES = size_t(32) << 10;
constexpr size_t MAX_MESSAGE_BYTES = size_t(48) << 10;
constexpr size_t FRAME_HEADER_BYTES = 8;
constexpr size_t MAX_FRAME_BYTES = FRAME_HEADER_BYTES + MAX_MESSAGE_BYTES + DATA_BYTES;
// A packet between mover and opener: a frame of any size, or as many small ones as fill one record of the link.
constexpr size_t MAX_PACKET_BYTES = MAX_FRAME_BYTES;
constexpr size_t PACKET_FILL_BYTES = size_t(64) << 10;

constexpr size_t MAX_NAME_BYTES = 255;
constexpr size_t MAX_PATH_BYTES = 4095;
constexpr size_t MAX_OWNER_BYTES = 64;
constexpr size_t MAX_PROBLEM_BYTES = 512;
// An id is at most 64 bytes (protocol/policy/bounds.h); with the number of a rule that a program wrote.
constexpr size_t MAX_RULE_ID_BYTES = 128;
// What may be wrong with one entry is told in so many messages at most: its owner, times and attributes each.
constexpr uint64_t MAX_PROBLEMS_PER_ENTRY = 4;
constexpr size_t MAX_ATTRIBUTES = 64;
// Directories inside each other. Each costs an open descriptor at both ends.
constexpr uint32_t MAX_DEPTH = 256;
// What st_size can say.
constexpr uint64_t MAX_FILE_BYTES = (uint64_t(1) << 63) - 1;
constexpr uint64_t MAX_COUNT = uint64_t(1) << 48;
// A tree may grow between counting and sending: more than this over what was announced is a breach.
constexpr uint64_t ANNOUNCED_SLACK_BYTES = uint64_t(1) << 30;
constexpr uint64_t ANNOUNCED_SLACK_ENTRIES = 10000;

// Rules of one PathScope, and the bytes of their globs.
constexpr size_t MAX_SCOPE_RULES = 1024;
constexpr size_t MAX_SCOPE_BYTES = size_t(1) << 20;

// Transfers at one time: of one VM (each has a thread and at most 3 MiB of buffers), and of one caller.
constexpr unsigned MAX_TRANSFERS = 8;
// Transfers that are over and whose threads a disk still holds: while there are more, none begins.
constexpr unsigned MAX_LEFT_BEHIND = 8;

// Small files that are written and wait for being synced together, before they get their names.
constexpr size_t GROUP_FILES = 256;
constexpr size_t GROUP_BYTES = size_t(8) << 20;
// A source that pauses does not leave files without names for longer than this.
constexpr auto GROUP_PAUSE = 100 * kj::MILLISECONDS;
// From the order to the destination's `ready`: the source counts its tree meanwhile and is not bounded by this.
constexpr auto READY_DEADLINE = 60 * kj::SECONDS;
constexpr auto PROGRESS_INTERVAL = 200 * kj::MILLISECONDS;

}  // namespace postern::transfer
