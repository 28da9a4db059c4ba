#pragma once
// Records: what travels encrypted.
//
//   frame body = AEAD(key, nonce, ad = "", inner)
//   inner      = u8 type | u8 flags | u16 padLength (LE) | u32 channel (LE) | data | pad
//
// padLength bytes at the end are not data; their value does not matter. Flags that a type does not define, a channel
// other than 0 where the type has none, and padding longer than what there is make the record bad, which ends the
// session.

#include <kj/array.h>
#include <kj/common.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <stdint.h>

#include "protocol/frame.h"

namespace postern {

constexpr size_t RECORD_HEADER_BYTES = 8;
constexpr size_t TAG_BYTES = 16;
constexpr size_t MAX_RECORD_DATA_BYTES = MAX_FRAME_BODY_BYTES - TAG_BYTES - RECORD_HEADER_BYTES;

// In front of a record's data in a buffer that is sealed in place.
constexpr size_t RECORD_HEADROOM = FRAME_HEADER_BYTES + RECORD_HEADER_BYTES;

enum class RecordType : uint8_t {
  RPC = 1,      // a piece of the stream of serialised Cap'n Proto messages; a multiple of 8 bytes
  CLOSE = 2,    // u8 CloseCode
  REKEY = 3,    // empty; the sender's key changes behind it
  PING = 4,     // u64 (LE) number
  PONG = 5,     // u64 (LE): the latest PING's number, which also answers all before it
  CONFIRM = 6,  // guest: Confirm, host: Accept (session.capnp)
  BULK = 7,     // channel, see the flags
  COMMIT = 8,   // enrolment; guest: COMMIT, host: COMMITTED; empty
};

// Flags of BULK; one at most. Without one the data is the channel's bytes.
constexpr uint8_t BULK_FINISHED = 1;  // no data; the sender's direction ends here
constexpr uint8_t BULK_CREDIT = 2;    // u32 (LE): so much more may be sent
constexpr uint8_t BULK_RESET = 4;     // u8 reason; both directions end

struct RecordHeader {
  RecordType type;
  uint8_t flags = 0;
  uint16_t padLength = 0;
  uint32_t channel = 0;
};

struct Record {
  RecordHeader header;
  kj::ArrayPtr<kj::byte> data;  // without the padding
};

// Why an authenticated peer ended, or is made to end, a session. On the wire: never renumber.
enum class CloseCode : uint8_t {
  GOODBYE = 1,             // the sender stops: on purpose, all is well
  REPLACED = 2,            // a newer session of the same identity took over
  PROTOCOL_ERROR = 3,      // the receiver of this broke a rule of PROTOCOL.md
  POLICY = 4,              // not allowed (now)
  DUPLICATE_IDENTITY = 5,  // two live agents have one identity
  RESOURCE_LIMIT = 6,
  TIMED_OUT = 7,
  INTERNAL = 8,  // the sender failed
  VERSION = 9,   // no common version or a needed feature is missing
};
kj::StringPtr describe(CloseCode code);
kj::Maybe<CloseCode> parseCloseCode(uint8_t untrusted);

void writeRecordHeader(const RecordHeader& header, kj::ArrayPtr<kj::byte> out);
// Null for a bad record (see above). `untrustedInner` is the decrypted whole.
kj::Maybe<Record> parseRecord(kj::ArrayPtr<kj::byte> untrustedInner);

}  // namespace postern
