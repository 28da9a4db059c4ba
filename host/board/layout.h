#pragma once
// The status board as it lies in its file, for whoever maps it: byte by byte, so that any language can. It needs
// nothing but a C++ compiler. The file is one header of HEADER_BYTES and `capacity` slots of `slotBytes` each, written
// by posternd alone, mode 0640, and never truncated while it has this layout version. Integers have the byte order of
// the machine (`byteOrder` tells); times are nanoseconds of CLOCK_MONOTONIC, which is one clock for the whole machine.
//
// A slot is read without a lock: load `lock` (acquire); odd means that it is being written: try again; copy the 8-byte
// words you want (each an acquire load); load `lock` again: if it changed, try again. Bound the tries: a writer that
// was killed leaves an odd `lock` for ever. Then trust nothing: texts end at the first NUL or at the end of their
// field.
//
// Whoever reads for long looks at `retired` and `writerStamp` now and then: retired != 0 says that the writer has ended
// or that a new file has taken the path (open it again); a stamp that is STALE_NS behind says that the writer is dead
// or hangs. A board whose `hostBoot` is not the machine's boot id is of an earlier boot, and its times mean nothing.

#include <stddef.h>
#include <stdint.h>

#include <atomic>

namespace postern::board {

constexpr char MAGIC[8] = {'P', 'S', 'T', 'N', 'B', 'O', 'R', 'D'};
constexpr uint32_t LAYOUT_VERSION = 1;
constexpr uint32_t HEADER_BYTES = 4096;  // a page
constexpr uint32_t SLOT_BYTES = 1024;
constexpr uint32_t MAX_CAPACITY = 1 << 16;  // 64 MiB; more is not a board of ours
constexpr uint64_t BYTE_ORDER_MARK = 0x0102030405060708;
constexpr uint64_t BEAT_NS = 1'000'000'000;   // the writer renews its stamp at least this often
constexpr uint64_t STALE_NS = 3'000'000'000;  // three that are missing, as for a heartbeat

static_assert(std::atomic<uint64_t>::is_always_lock_free && sizeof(std::atomic<uint64_t>) == 8);
static_assert(std::atomic<uint32_t>::is_always_lock_free && sizeof(std::atomic<uint32_t>) == 4);

enum Retired : uint32_t { LIVE = 0, ENDED = 1, REPLACED = 2 };

// The upper part never changes once the file has its name.
struct Header {
  char magic[8];           //   0
  uint32_t layoutVersion;  //   8
  uint32_t headerBytes;    //  12  where slot 0 begins
  uint32_t slotBytes;      //  16
  uint32_t capacity;       //  20  slots in the file
  uint64_t byteOrder;      //  24  BYTE_ORDER_MARK
  uint32_t writerPid;      //  32
  uint32_t reserved0;      //  36
  uint64_t writerStart;    //  40  when the writer's process began: field 22 of /proc/PID/stat, in clock ticks
  uint8_t hostBoot[16];    //  48  the machine's /proc/sys/kernel/random/boot_id
  uint8_t instance[16];    //  64  random, another one with each writer
  std::atomic<uint64_t> writerStamp;  //  80  when the writer last said that it lives
  std::atomic<uint64_t> writerBeats;  //  88  how often it did
  std::atomic<uint32_t> extent;       //  96  every slot in use lies below this index
  std::atomic<uint32_t> count;        // 100  slots in use
  std::atomic<uint32_t> retired;      // 104  Retired
  uint32_t reserved1;                 // 108
  uint8_t reserved[3984];             // 112  zero
};
static_assert(sizeof(Header) == HEADER_BYTES);
static_assert(offsetof(Header, capacity) == 20 && offsetof(Header, writerStart) == 40);
static_assert(offsetof(Header, instance) == 64 && offsetof(Header, writerStamp) == 80);
static_assert(offsetof(Header, extent) == 96 && offsetof(Header, retired) == 104 && offsetof(Header, reserved) == 112);

enum Transport : uint8_t {
  TRANSPORT_NONE = 0,
  TRANSPORT_UNIX = 1,
  TRANSPORT_VSOCK = 2,
  TRANSPORT_HYBRID = 3,
  TRANSPORT_SERIAL = 4
};

// What a slot says, behind its lock. Offsets are the slot's; a free slot is all zero but for its lock.
struct Slot {
  uint32_t used;               //   8  1: this slot has a VM
  uint8_t colour;              //  12  0 gray, 1 green, 2 yellow, 3 red
  uint8_t transport;           //  13  Transport
  uint8_t linkUp;              //  14  1: a session is up
  uint8_t guestState;          //  15  0 running, 1 stopping, 2 frozen, 3 resumed; as of the last heartbeat
  uint16_t reason;             //  16  codes: host/health/reason.h; show one that you do not know as "unknown"
  uint16_t reserved0;          //  18
  uint32_t sessionPid;         //  20  0: no process
  char name[64];               //  24  of the VM; not terminated if it has 64 bytes
  uint8_t vm[16];              //  88  its uuid
  uint64_t since;              // 104  since when colour and reason are these
  uint64_t sessionCount;       // 112  sessions of this VM since the writer began
  uint64_t lastHeartbeat;      // 120  0: none yet, and then all below is zero
  uint64_t heartbeatSequence;  // 128
  uint32_t intervalMs;         // 136
  uint32_t loopLagUs;          // 140  of the agent's event loop
  uint8_t guestBoot[16];       // 144  the guest kernel's boot id
  char agentVersion[32];       // 160
  uint64_t agentUptimeMs;      // 192
  uint32_t load1;              // 200  load average times 100, over 1, 5 and 15 minutes
  uint32_t load5;              // 204
  uint32_t load15;             // 208
  uint32_t reserved1;          // 212
  uint64_t memoryTotal;        // 216  bytes
  uint64_t memoryAvailable;    // 224
  uint8_t policyHash[32];      // 232  BLAKE2b-256 of the guest's own policy
  uint64_t guestUptimeMs;      // 264
  uint8_t reserved[240];       // 272  zero
};
constexpr size_t SLOT_WORDS = sizeof(Slot) / 8;
static_assert(sizeof(Slot) == 504 && offsetof(Slot, name) == 24 - 8 && offsetof(Slot, vm) == 88 - 8);
static_assert(offsetof(Slot, since) == 104 - 8 && offsetof(Slot, intervalMs) == 136 - 8);
static_assert(offsetof(Slot, agentVersion) == 160 - 8 && offsetof(Slot, memoryTotal) == 216 - 8);
static_assert(offsetof(Slot, policyHash) == 232 - 8 && offsetof(Slot, guestUptimeMs) == 264 - 8 &&
              offsetof(Slot, reserved) == 272 - 8);

// The VM's port: counters of all channels that the VM has had on either end, since the writer began, or the VM's
// session process, if that is older. Not behind the lock: each word is one atomic load, and two of them may be of
// different moments.
enum PortCounter : uint32_t {
  PORT_BLOCKED = 0,         // 1: by policy, 2: by hand, 3: both
  PORT_OPENED = 1,          // channels
  PORT_DENIED = 2,          // by policy
  PORT_REFUSED = 3,         // by a limit, or the target was not reached
  PORT_ACTIVE = 4,          // now
  PORT_BYTES_OUT = 5,       // out of the VM
  PORT_BYTES_IN = 6,        // into it
  PORT_MESSAGES_OUT = 7,    // pieces in which they travelled
  PORT_MESSAGES_IN = 8,     //
  PORT_THROTTLED_NS = 9,    // that pieces waited for a limit, summed
  PORT_MIRROR_DROPPED = 10  // frames for a mirror that did not read
};
constexpr uint32_t PORT_LAST_DENIED =
    16;  // 8 words: the id of the rule that denied last, or the reason; NUL-terminated
constexpr uint32_t PORT_WORDS = 64;

struct MappedSlot {
  std::atomic<uint64_t> lock;               //   0  odd: being written
  std::atomic<uint64_t> words[SLOT_WORDS];  //   8  a Slot
  std::atomic<uint64_t> port[PORT_WORDS];   // 512  by PortCounter; the rest is zero
};
static_assert(sizeof(MappedSlot) == SLOT_BYTES && offsetof(MappedSlot, port) == 512);

}  // namespace postern::board
