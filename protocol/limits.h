#pragma once
// Every number of the protocol that is policy, each with its reason. Numbers that define the wire form stand beside
// it (frame.h, hello.h, record.h); the size of a buffer is here only where a peer can make us pay for it.

#include <kj/time.h>
#include <kj/units.h>
#include <stdint.h>

namespace postern::limits {

// Before authentication -----------------------------------------------------------------------------------------

// From accept (serial: from link UP) to the initiator's CONFIRM. A handshake is 200 us of CPU; 3 s covers a guest
// that is starved or being emulated, and bounds how long a silent peer holds a slot.
constexpr auto HANDSHAKE_DEADLINE = 3 * kj::SECONDS;

// Largest body of a frame before authentication. The largest legitimate one, CONFIRM, is below 200 bytes.
constexpr size_t MAX_HANDSHAKE_BODY_BYTES = 256;

// Frames after HELLO that a peer may send before it is authenticated: HS 1, HS 3 and CONFIRM.
constexpr unsigned MAX_HANDSHAKE_FRAMES = 3;

// Links that are between accept and CONFIRM. Two a VM: one that hangs and one that replaces it. 64 in all bounds
// memory to 64 * 4 KiB; connections above that wait, unread, in the kernel's listen queue.
constexpr unsigned MAX_HALF_OPEN_PER_VM = 2;
constexpr unsigned MAX_HALF_OPEN = 64;

// Token bucket of handshakes a VM. A success puts its token back, so that only failures are limited.
constexpr unsigned HANDSHAKE_BURST = 10;
constexpr unsigned HANDSHAKES_PER_SECOND = 5;

// Back-off. A connect that fails is retried quickly, since the other end is usually restarting; a handshake that
// was refused is a matter of keys, which a person must mend. Never a permanent ban.
constexpr auto CONNECT_RETRY_FIRST = 200 * kj::MILLISECONDS;
constexpr auto CONNECT_RETRY_MAX = 2 * kj::SECONDS;
constexpr auto REFUSED_RETRY_MAX = 30 * kj::SECONDS;

// The serial link's SYNC while not UP: at open, after 250 ms, doubling to 5 s.
constexpr auto SYNC_RETRY_FIRST = 250 * kj::MILLISECONDS;
constexpr auto SYNC_RETRY_MAX = 5 * kj::SECONDS;

// Connections ---------------------------------------------------------------------------------------------------

// Firecracker answers CONNECT after the guest's accept; its own time-out is 2 s.
constexpr auto HYBRID_CONNECT_TIMEOUT = 2500 * kj::MILLISECONDS;
constexpr auto CONNECT_TIMEOUT = 5 * kj::SECONDS;

// Sessions ------------------------------------------------------------------------------------------------------

// A PING that is not answered in this time closes the link: a whole record is lost, or the peer is gone.
constexpr auto PING_DEADLINE = 3 * kj::SECONDS;

// The sending side changes its key after this many records or this long, whichever is first, when it next sends.
constexpr uint64_t REKEY_AFTER_RECORDS = uint64_t(1) << 16;
constexpr auto REKEY_AFTER = 10 * kj::MINUTES;
// A REKEY that comes both sooner than this many records and sooner than this time after the previous one is a storm
// (each costs a cipher call and nothing else) and closes the link. Half of what an honest sender waits.
constexpr uint64_t REKEY_STORM_RECORDS = REKEY_AFTER_RECORDS / 2;
constexpr auto REKEY_STORM_TIME = 5 * kj::MINUTES;
// A sender that has not changed its key after this many records is broken or hostile: twice what an honest one does.
constexpr uint64_t MAX_RECORDS_WITHOUT_REKEY = REKEY_AFTER_RECORDS * 2;

// A new handshake is due after this long or this much, for fresh ephemeral keys.
constexpr auto RENEW_AFTER = 24 * kj::HOURS;
constexpr uint64_t RENEW_AFTER_BYTES = uint64_t(1) << 40;

// A close waits this long for the pipe to take its CLOSE; a peer that does not read is not waited for.
constexpr auto CLOSE_LINGER = 1 * kj::SECONDS;

// RPC -----------------------------------------------------------------------------------------------------------

// Cap'n Proto's own stream reader allows 512 segments; no honest message of ours has more than a few.
constexpr unsigned MAX_RPC_SEGMENTS = 512;
// One message. Bulk bytes never travel in RPC, so this is generous.
constexpr uint64_t MAX_RPC_MESSAGE_BYTES = uint64_t(16) << 20;
// Words a receiver will walk in one message: as many as the largest message has, so a message may be read once.
constexpr uint64_t RPC_TRAVERSAL_WORDS = MAX_RPC_MESSAGE_BYTES / 8;
constexpr int RPC_NESTING = 64;
// Words of calls in progress on a link, above which no further message is read from it.
constexpr uint64_t RPC_FLOW_WORDS = RPC_TRAVERSAL_WORDS;
// Outgoing RPC bytes above which writeMessage() waits; also the window of `-> stream`.
constexpr size_t RPC_QUEUE_BYTES = size_t(256) << 10;
constexpr int RPC_STREAM_WINDOW_BYTES = 1 << 20;
// Answers that may lie in the RPC system for a peer that does not read them: one of the largest; and so few that the
// chain of promises in which they lie is taken down without using up the stack (8 MiB overflow between 32,000 and
// 64,000).
constexpr size_t MAX_RPC_BACKLOG_BYTES = MAX_RPC_MESSAGE_BYTES;
constexpr size_t MAX_RPC_BACKLOG_MESSAGES = 4096;
// The peer's calls that are in progress, or answered and not finished by it. Each keeps an entry of the RPC system.
constexpr size_t MAX_RPC_ANSWERS = size_t(1) << 16;
// Incoming whole messages that wait for the RPC system before the link stops reading: one full read's worth.
constexpr size_t RPC_INCOMING_BYTES = size_t(256) << 10;

// Bulk channels -------------------------------------------------------------------------------------------------

// What a record costs in credit beside its data, so that one-byte records cannot make the receiver hold more memory
// than the credit says: an allocation and a queue entry.
constexpr uint32_t BULK_RECORD_COST = 64;
// Credit of a new channel, and what a reader that stops keeps. One full record.
constexpr uint32_t BULK_WINDOW_FIRST = 64 << 10;
// A channel that uses its whole window has it doubled up to this. 1 MiB at 1.5 GB/s covers 0.7 ms of round trip.
constexpr uint32_t BULK_WINDOW_MAX = 1 << 20;
// All windows of a link together; above it a new channel gets BULK_WINDOW_SMALL.
constexpr uint32_t BULK_WINDOWS_PER_LINK = 16 << 20;
constexpr uint32_t BULK_WINDOW_SMALL = 8 << 10;
// A window that has not turned over for this long goes back to BULK_WINDOW_FIRST.
constexpr auto BULK_WINDOW_IDLE = 1 * kj::SECONDS;
constexpr unsigned MAX_BULK_CHANNELS = 4096;

// Buffers -------------------------------------------------------------------------------------------------------

// One read of a link takes at most this; the buffer is the process's, not the link's.
constexpr size_t READ_BYTES = size_t(256) << 10;
// What the kernel is asked to hold of ours on a Unix socket (it doubles the number): two full records. More would put a
// control message further behind bulk bytes; less would cost throughput.
constexpr size_t UNIX_SEND_BUFFER_BYTES = size_t(64) << 10;
// A loop's main() polls for I/O after this many events even if more are queued: links read cooperatively, so a busy one
// never leaves the queue empty. Measured: at 64 a call beside a full-speed stream takes half as long again; at 16
// pipelined calls, which come in smaller batches then, lose a tenth.
constexpr unsigned BUSY_POLL_INTERVAL = 32;
// Behind so many bytes a link that takes everything leaves the loop to others: two full records, all that one channel
// has ready. Fifty channels have a hundred, 10 ms that a call would wait out. For BUSY_POLL_INTERVAL turns, so that the
// loop has polled and an answer that came meanwhile is read.
constexpr size_t WRITE_BURST_BYTES = size_t(128) << 10;
// What a pool keeps of blocks that nobody uses: 8 MiB. Many more are out at once only when many channels are busy.
constexpr size_t MAX_IDLE_BLOCKS = 128;
// Pooled blocks are given back to the system when none was used for this long.
constexpr auto BUFFER_IDLE = 1 * kj::SECONDS;

}  // namespace postern::limits
