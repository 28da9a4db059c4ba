#pragma once
// MessageAssembler: cuts the stream of RPC record data into serialised Cap'n Proto messages.
//
// The stream is Cap'n Proto's own stream framing: u32 (LE) number of segments less one, u32 words of each segment,
// padding to 8 bytes, then the segments. A message may span records and a record may hold several.
//
// Trust: the segment table is checked (at most limits::MAX_RPC_SEGMENTS, limits::MAX_RPC_MESSAGE_BYTES in all, added up
// without overflow) before anything is allocated for it. What lies inside a message is checked when it is read, under
// the reader options of rpc-system.h. A record that is exactly one message is kept where it was decrypted; every other
// message gets an allocation of its own size, so that a small message never keeps a large record in memory.

#include <capnp/common.h>
#include <kj/array.h>

#include <deque>

namespace postern {

struct IncomingMessage {
  kj::Array<kj::byte> storage;            // keeps `words` alive
  kj::ArrayPtr<const capnp::word> words;  // segment table and segments
};

enum class MessageError {
  TOO_MANY_SEGMENTS,
  TOO_LARGE,
};
kj::StringPtr describe(MessageError error);

class MessageAssembler {
 public:
  // `data` is a record's, 8-byte aligned and a multiple of 8 bytes long; `storage` owns it. Whole messages are added to
  // `out`. After an error the assembler must not be used any more.
  kj::Maybe<MessageError> add(kj::Array<kj::byte> storage, kj::ArrayPtr<const kj::byte> data,
                              std::deque<IncomingMessage>& out);

  // In the middle of a message?
  bool midMessage() const { return tableHave > 0 || message != nullptr; }

 private:
  // A segment table that is incomplete: at most 4 + 4 * MAX_RPC_SEGMENTS bytes, grown as it comes.
  kj::Array<kj::byte> table;
  size_t tableHave = 0;
  kj::Array<kj::byte> message;
  size_t messageHave = 0;

  kj::Maybe<MessageError> addToTable(kj::ArrayPtr<const kj::byte>& data, std::deque<IncomingMessage>& out);
  void addToMessage(kj::ArrayPtr<const kj::byte>& data, std::deque<IncomingMessage>& out);
};

}  // namespace postern
