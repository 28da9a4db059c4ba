// parseRecord() over any bytes; and a whole session whose peer has the keys and sends any records it likes, while its
// owner uses it: it goes on or ends, asserts nothing, keeps nothing, and what it sends itself is always in order.
//
// input = u8 flags
//   flags 1 set:   the bytes of one record, as decrypted
//   otherwise      steps, each u8 kind and what that needs; flags: 2 this end is the host, 4 enrolment, 8 with RPC
//     0 u16 n, n bytes: an authentic record of them       1 u8 n, n bytes: not authentic      2 u8 n: time passes
//     3 u8 n: the pipe takes n * 64 bytes more            4 what was sent is read             5 ping   6 RPC call
//     7 open a channel   8 u32 number, u32 credit: accept one
//     9 u8 channel, u16 n: write n bytes   10 u8 channel: read and drop   11 read and keep   12 finish   13 reset
//     14 drop it and a chunk               15 u8 code: close              16 go on with the enrolment, start RPC
//     17 u8 channel, u16 n: write n * 4 bytes, waiting for credit        18 u8 n: n % 6 RPC messages of 60,000 bytes

#include "protocol/record.h"

#include <string.h>

#include "protocol/wire-int.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/session-peer.h"
#include "tests/fuzz/verdict.h"

namespace postern::fuzz {
namespace {

void runParser(kj::ArrayPtr<const kj::byte> bytes) {
  auto inner = copyOf(bytes);
  KJ_IF_MAYBE (record, parseRecord(inner)) {
    kj::byte header[RECORD_HEADER_BYTES];
    writeRecordHeader(record->header, header);
    expect(memcmp(header, bytes.begin(), sizeof(header)) == 0, "a header is written as the same bytes");
    expect(record->data.begin() == inner.begin() + RECORD_HEADER_BYTES, "the data lies behind the header");
    expect(RECORD_HEADER_BYTES + record->data.size() + record->header.padLength == bytes.size(),
           "header, data and padding are the record");
  }
}

// Up to 6 s finely, then up to 21 minutes, past every limit on keys.
kj::Duration durationOf(uint8_t number) {
  return number < 128 ? number * 50 * kj::MILLISECONDS : (number - 127) * 10 * kj::SECONDS;
}

// Of a kind that no RPC system knows: it sends each one back. Without an RPC system nobody would read them, and a
// session whose owner lets so much lie reads no more, not even its stream's end.
void sendLongMessages(SessionPeer& peer, unsigned count) {
  constexpr uint32_t WORDS = 7500;
  auto record = kj::heapArray<kj::byte>(RECORD_HEADER_BYTES + 8 + WORDS * 8);
  memset(record.begin(), 0, record.size());
  writeRecordHeader({RecordType::RPC}, record);
  auto* message = record.begin() + RECORD_HEADER_BYTES;
  putLittleEndian<uint32_t>(WORDS, message + 4);
  putLittleEndian<uint64_t>(uint64_t(1) << 32, message + 8);  // a struct of one word of data
  putLittleEndian<uint64_t>(99, message + 16);
  for (unsigned i = 0; i < count; ++i) peer.sendRecord(record);
}

void step(SessionPeer& peer, Input& input) {
  switch (input.u8() % 19) {
    case 0:
      return peer.sendRecord(input.take(input.u16() % 4096));
    case 1:
      return peer.sendRaw(input.take(input.u8()));
    case 2:
      return peer.advance(durationOf(input.u8()));
    case 3:
      return peer.setCapacity(size_t(input.u8()) * 64);
    case 4:
      return peer.readAnswers();
    case 5:
      return peer.ping();
    case 6:
      return peer.call();
    case 7:
      return peer.openChannel();
    case 8: {
      uint32_t number = input.u32();
      return peer.acceptChannel({number, input.u32()});
    }
    case 9: {
      uint8_t channel = input.u8();
      return peer.writeTo(channel, input.u16());
    }
    case 10:
      return peer.readFrom(input.u8(), false);
    case 11:
      return peer.readFrom(input.u8(), true);
    case 12:
      return peer.finish(input.u8());
    case 13:
      return peer.reset(input.u8());
    case 14:
      return peer.dropChannel(input.u8());
    case 15:
      return peer.close(static_cast<CloseCode>(1 + input.u8() % 9));
    case 16:
      peer.continueEnrolment();
      return peer.startRpc();
    case 17: {
      uint8_t channel = input.u8();
      return peer.writeAllTo(channel, input.u16() * size_t(4));
    }
    default:
      if (peer.hasRpc()) sendLongMessages(peer, input.u8() % 6);
      return;
  }
}

void runSession(uint8_t flags, Input& input) {
  SessionPeer peer((flags & 2) != 0 ? Role::HOST : Role::GUEST,
                   (flags & 4) != 0 ? SessionPeer::Kind::ENROLMENT : SessionPeer::Kind::ENROLLED);
  if ((flags & 8) != 0) peer.startRpc();
  while (!input.isEmpty()) {
    step(peer, input);
    peer.settle();
  }
  peer.judgeEnd();
}

void run(Input input) {
  uint8_t flags = input.u8();
  if ((flags & 1) != 0) {
    runParser(input.takeAll());
  } else {
    runSession(flags, input);
  }
}

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postern::fuzz::NoFailedAssertions noFailedAssertions;
  postern::fuzz::run({data, size});
  return 0;
}
