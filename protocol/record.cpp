#include "protocol/record.h"

#include <kj/debug.h>

#include "protocol/wire-int.h"

namespace postern {

namespace {

// What a type allows, and the length its data must have.
// T20
bool isWellFormed(const RecordHeader& header, size_t dataBytes) {
  if (header.type != RecordType::BULK && (header.flags != 0 || header.channel != 0)) return false;
  switch (header.type) {
    case RecordType::RPC:
      return dataBytes > 0 && dataBytes % 8 == 0;
    case RecordType::CLOSE:
      return dataBytes == 1;
    case RecordType::REKEY:
    case RecordType::COMMIT:
      return dataBytes == 0;
    case RecordType::PING:
    case RecordType::PONG:
      return dataBytes == 8;
    case RecordType::CONFIRM:
      return dataBytes > 0;
    case RecordType::BULK:
      switch (header.flags) {
        case 0:
          return dataBytes > 0;
        case BULK_FINISHED:
          return dataBytes == 0;
        case BULK_CREDIT:
          return dataBytes == 4;
        case BULK_RESET:
          return dataBytes == 1;
        default:
          return false;
      }
  }
  return false;
}

}  // namespace

kj::StringPtr describe(CloseCode code) {
  switch (code) {
    case CloseCode::GOODBYE:
      return "goodbye";
    case CloseCode::REPLACED:
      return "replaced by a newer session";
    case CloseCode::PROTOCOL_ERROR:
      return "protocol error";
    case CloseCode::POLICY:
      return "not allowed by policy";
    case CloseCode::DUPLICATE_IDENTITY:
      return "another agent uses the same identity";
    case CloseCode::RESOURCE_LIMIT:
      return "resource limit";
    case CloseCode::TIMED_OUT:
      return "timed out";
    case CloseCode::INTERNAL:
      return "internal failure";
    case CloseCode::VERSION:
      return "no common version or feature";
  }
  KJ_UNREACHABLE;
}

kj::Maybe<CloseCode> parseCloseCode(uint8_t untrusted) {
  if (untrusted < uint8_t(CloseCode::GOODBYE) || untrusted > uint8_t(CloseCode::VERSION)) return nullptr;
  return static_cast<CloseCode>(untrusted);
}

void writeRecordHeader(const RecordHeader& header, kj::ArrayPtr<kj::byte> out) {
  KJ_IREQUIRE(out.size() >= RECORD_HEADER_BYTES);
  out[0] = static_cast<kj::byte>(header.type);
  out[1] = header.flags;
  putLittleEndian<uint16_t>(header.padLength, out.begin() + 2);
  putLittleEndian<uint32_t>(header.channel, out.begin() + 4);
}

kj::Maybe<Record> parseRecord(kj::ArrayPtr<kj::byte> untrustedInner) {
  if (untrustedInner.size() < RECORD_HEADER_BYTES) return nullptr;
  if (untrustedInner[0] < uint8_t(RecordType::RPC) || untrustedInner[0] > uint8_t(RecordType::COMMIT)) return nullptr;
  RecordHeader header;
  header.type = static_cast<RecordType>(untrustedInner[0]);
  header.flags = untrustedInner[1];
  header.padLength = getLittleEndian<uint16_t>(untrustedInner.begin() + 2);
  header.channel = getLittleEndian<uint32_t>(untrustedInner.begin() + 4);
  size_t rest = untrustedInner.size() - RECORD_HEADER_BYTES;
  if (header.padLength > rest) return nullptr;
  size_t dataBytes = rest - header.padLength;
  if (!isWellFormed(header, dataBytes)) return nullptr;
  return Record{header, untrustedInner.slice(RECORD_HEADER_BYTES, RECORD_HEADER_BYTES + dataBytes)};
}

}  // namespace postern
