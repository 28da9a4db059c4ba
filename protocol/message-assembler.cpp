#include "protocol/message-assembler.h"

#include <kj/debug.h>
#include <kj/one-of.h>
#include <string.h>

#include <algorithm>

#include "protocol/limits.h"
#include "protocol/wire-int.h"

namespace postern {

namespace {

struct Incomplete {
  size_t tableBytes;  // how much of the table must be there to know more
};
struct Whole {
  size_t tableBytes;
  size_t messageBytes;  // table included
};

size_t tableBytesFor(size_t segments) {
  return (4 + 4 * segments + 7) & ~size_t(7);
}

// Reads what is there of a segment table.
// T25
kj::OneOf<Incomplete, Whole, MessageError> readTable(kj::ArrayPtr<const kj::byte> untrusted) {
  if (untrusted.size() < 8) return Incomplete{8};
  uint64_t segments = uint64_t(getLittleEndian<uint32_t>(untrusted.begin())) + 1;
  if (segments > limits::MAX_RPC_SEGMENTS) return MessageError::TOO_MANY_SEGMENTS;
  size_t tableBytes = tableBytesFor(segments);
  if (untrusted.size() < tableBytes) return Incomplete{tableBytes};
  uint64_t total = tableBytes;
  for (size_t i = 0; i < segments; ++i) {
    // At most 512 * 8 * 2^32: no overflow in 64 bits.
    total += uint64_t(8) * getLittleEndian<uint32_t>(untrusted.begin() + 4 + 4 * i);
  }
  if (total > limits::MAX_RPC_MESSAGE_BYTES) return MessageError::TOO_LARGE;
  return Whole{tableBytes, total};
}

kj::ArrayPtr<const capnp::word> asWords(kj::ArrayPtr<const kj::byte> bytes) {
  KJ_IREQUIRE(reinterpret_cast<uintptr_t>(bytes.begin()) % sizeof(capnp::word) == 0);
  return kj::arrayPtr(reinterpret_cast<const capnp::word*>(bytes.begin()), bytes.size() / sizeof(capnp::word));
}

size_t moveInto(kj::ArrayPtr<kj::byte> target, size_t have, kj::ArrayPtr<const kj::byte>& data) {
  size_t n = std::min(target.size() - have, data.size());
  memcpy(target.begin() + have, data.begin(), n);
  data = data.slice(n, data.size());
  return n;
}

}  // namespace

kj::StringPtr describe(MessageError error) {
  switch (error) {
    case MessageError::TOO_MANY_SEGMENTS:
      return "RPC message with too many segments";
    case MessageError::TOO_LARGE:
      return "RPC message over the size limit";
  }
  KJ_UNREACHABLE;
}

kj::Maybe<MessageError> MessageAssembler::add(kj::Array<kj::byte> storage, kj::ArrayPtr<const kj::byte> data,
                                              std::deque<IncomingMessage>& out) {
  if (!midMessage()) {
    auto table = readTable(data);
    if (table.is<MessageError>()) return table.get<MessageError>();
    if (table.is<Whole>() && table.get<Whole>().messageBytes == data.size()) {
      out.push_back({kj::mv(storage), asWords(data)});
      return nullptr;
    }
  }
  while (data.size() > 0) {
    if (message == nullptr) {
      KJ_IF_MAYBE (error, addToTable(data, out)) return *error;
    } else {
      addToMessage(data, out);
    }
  }
  return nullptr;
}

kj::Maybe<MessageError> MessageAssembler::addToTable(kj::ArrayPtr<const kj::byte>& data,
                                                     std::deque<IncomingMessage>& out) {
  auto have = kj::arrayPtr(table.begin(), tableHave);
  auto result = readTable(tableHave == 0 ? data : have);
  if (result.is<MessageError>()) return result.get<MessageError>();
  if (result.is<Incomplete>()) {
    size_t needed = result.get<Incomplete>().tableBytes;
    if (table.size() < needed) {
      auto larger = kj::heapArray<kj::byte>(needed);
      if (tableHave > 0) memcpy(larger.begin(), table.begin(), tableHave);
      table = kj::mv(larger);
    }
    tableHave += moveInto(table, tableHave, data);
    if (tableHave < table.size()) return nullptr;
    result = readTable(table);
    if (result.is<MessageError>()) return result.get<MessageError>();
    if (result.is<Incomplete>()) return nullptr;  // the table is longer than its first word
    have = table;
  }
  message = kj::heapArray<kj::byte>(result.get<Whole>().messageBytes);
  if (tableHave > 0) memcpy(message.begin(), have.begin(), tableHave);
  messageHave = tableHave;
  table = nullptr;
  tableHave = 0;
  addToMessage(data, out);
  return nullptr;
}

void MessageAssembler::addToMessage(kj::ArrayPtr<const kj::byte>& data, std::deque<IncomingMessage>& out) {
  messageHave += moveInto(message, messageHave, data);
  if (messageHave < message.size()) return;
  auto words = asWords(message);
  out.push_back({kj::mv(message), words});
  message = nullptr;
  messageHave = 0;
}

}  // namespace postern
