#include <capnp/message.h>
#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>

#include "protocol/confirmation.h"
#include "protocol/record.h"
#include "tests/fuzz/real-exchange.h"
#include "tests/fuzz/seed.h"
#include "tests/fuzz/session-peer.h"

namespace postern::fuzz {

namespace {

using Bytes = kj::ArrayPtr<const kj::byte>;

// Handshake ---------------------------------------------------------------------------------------------------------

void writeHandshakeSeeds(kj::StringPtr root) {
  SeedFolder folder(root, "handshake");
  // Flags, then place and mask of a change to HELLO, then for each message that this end reads: 0 the real one,
  // 1 changed, 2 given, 3 cut, 4 longer.
  for (uint8_t flags = 0; flags < 4; ++flags) {
    auto name = kj::str((flags & 2) != 0 ? "enrolment" : "session", (flags & 1) != 0 ? "-host" : "-guest");
    auto& messages = RealExchange::of((flags & 2) != 0 ? Pattern::ENROLMENT : Pattern::SESSION, Pin::NONE).messages;
    size_t first = (flags & 1) != 0 ? 0 : 1;  // that this end reads
    folder.write(kj::str(name, "-real"), Seed(flags, 0, 0, 0, 0));
    folder.write(kj::str(name, "-given"), Seed(flags, 0, 0, 2, messages[first].size()).add(messages[first]).u8(0));
    folder.write(kj::str(name, "-first-bit"), Seed(flags, 0, 0, 1, 0, 1, 0));
    folder.write(kj::str(name, "-last-bit"), Seed(flags, 0, 0, 1, messages[first].size() - 1, 0x80, 0));
    folder.write(kj::str(name, "-cut"), Seed(flags, 0, 0, 3, messages[first].size() - 1, 0));
    folder.write(kj::str(name, "-longer"), Seed(flags, 0, 0, 4, 1, 0, 0));
    folder.write(kj::str(name, "-hello-changed"), Seed(flags, 20, 1, 0, 0));
  }
  folder.write("enrolment-host-third-changed", Seed(3, 0, 0, 0, 1, 40, 1));
  folder.write("enrolment-guest-right-pin", Seed(6, 0, 0, 0, 0));
  folder.write("enrolment-guest-wrong-pin", Seed(14, 0, 0, 0, 0));
  folder.write("enrolment-host-wrong-pin", Seed(15, 0, 0, 0, 0));
}

// Establishing ------------------------------------------------------------------------------------------------------

void writeEstablishSeeds(kj::StringPtr root) {
  SeedFolder folder(root, "establish");
  folder.write("session-refused", Seed(2, 0, 255, 1, 255, 0, 255, 1, 255, 0, 255, 1, 255));
  folder.write("enrolment-small-pipes", Seed(5, 0, 255, 1, 255, 0, 255, 1, 255, 0, 255, 1, 255));
  // Steps: 0 and 1 forward to host and guest (255: all), 2 change a byte, 4 invent, 6 lose, 8 time passes, 9 end.
  for (uint8_t enrolment = 0; enrolment < 2; ++enrolment) {
    kj::StringPtr name = enrolment == 1 ? "enrolment"_kj : "session"_kj;
    auto begin = [&](unsigned rounds) {
      Seed seed(enrolment);
      for (unsigned i = 0; i < rounds; ++i) seed.u8(0, 255, 1, 255);
      return seed;
    };
    folder.write(kj::str(name, "-all-well"), begin(4));
    folder.write(kj::str(name, "-hello-changed"), begin(0).u8(2, 30, 1, 0, 255, 1, 255, 0, 255, 1, 255));
    folder.write(kj::str(name, "-first-message-changed"), begin(1).u8(2, 10, 1, 0, 255, 1, 255));
    folder.write(kj::str(name, "-first-record-changed"), begin(2).u8(2, 20, 4, 0, 255, 1, 255));
    folder.write(kj::str(name, "-answer-changed"), begin(1).u8(0, 255, 3, 12, 1, 1, 255, 0, 255));
    folder.write(kj::str(name, "-accept-changed"), begin(2).u8(0, 255, 3, 20, 1, 1, 255));
    folder.write(kj::str(name, "-lost"), begin(1).u8(6, 20, 0, 255, 8, 200));
    folder.write(kj::str(name, "-late"), begin(1).u8(8, 149, 0, 255, 1, 255, 8, 1, 0, 255));
    folder.write(kj::str(name, "-invented-behind"), begin(3).u8(4, 8, 3, 0, 3, 0, 0, 0, 0, 0));
    folder.write(kj::str(name, "-cut-off"), begin(1).u8(0, 20, 9, 10));
    folder.write(kj::str(name, "-in-pieces"), begin(0).u8(0, 1, 0, 7, 0, 112, 1, 119, 1, 1, 0, 9, 0, 255, 1, 255));
  }
}

// Records -----------------------------------------------------------------------------------------------------------

Seed inner(RecordType type, Bytes data = nullptr, uint8_t flags = 0, uint32_t channel = 0) {
  Seed seed(type, flags);
  seed.u16(0).u32(channel);
  seed.add(data);
  return seed;
}

// A step: the peer sends this record.
Seed& addRecord(Seed& seed, Bytes bytes) {
  return seed.u8(0).u16(static_cast<uint16_t>(bytes.size())).add(bytes);
}
Seed& addRecord(Seed& seed, const Seed& record) {
  return addRecord(seed, record.asPtr());
}

// What an honest end's RPC system says when it makes two calls.
kj::Vector<kj::Array<kj::byte>> realRpc(Role from) {
  kj::Vector<kj::Array<kj::byte>> records;
  SessionPeer peer(from, SessionPeer::Kind::ENROLLED);
  peer.onAnswer = [&](Bytes record) { records.add(kj::heapArray<kj::byte>(record)); };
  peer.startRpc();
  peer.settle();
  peer.readAnswers();
  for (int i = 0; i < 2; ++i) {
    peer.call();
    peer.settle();
    peer.readAnswers();
  }
  return records;
}

constexpr uint8_t HOST = 2, ENROLMENT = 4, RPC = 8;

void writeRecordSeeds(kj::StringPtr root) {
  SeedFolder folder(root, "record");
  const kj::byte eight[8] = {1}, one[1] = {1}, four[4] = {0, 0, 1, 0};
  // The parser alone (flag 1).
  folder.write("parse-ping", Seed(1).add(inner(RecordType::PING, eight).asPtr()));
  folder.write("parse-padded", Seed(1, 7, 0, 3, 0, 1, 0, 0, 0, 9, 9, 0, 0, 0));
  folder.write("parse-padding-too-long", Seed(1, 7, 0, 9, 0, 1, 0, 0, 0, 9));

  // A session; the steps are in fuzz-record.cpp.
  Seed pings(HOST);
  pings.u8(5);
  addRecord(pings, inner(RecordType::PING, eight));
  folder.write("ping-and-pong", addRecord(pings, inner(RecordType::PONG, eight)).u8(4));
  Seed pong(HOST);
  folder.write("pong-without-ping", addRecord(pong, inner(RecordType::PONG, eight)));
  folder.write("ping-timeout", Seed(HOST, 5, 2, 70));
  Seed closed(HOST | RPC);
  folder.write("closed-by-peer", addRecord(closed, inner(RecordType::CLOSE, one)));
  folder.write("closed-here", Seed(HOST | RPC, 15, 0, 4));
  folder.write("closed-here-with-a-full-pipe", Seed(HOST | RPC, 3, 0, 6, 15, 0, 2, 30));
  Seed rekey(HOST, 2, 200);
  addRecord(rekey, inner(RecordType::REKEY));
  folder.write("rekey", addRecord(rekey, inner(RecordType::PING, eight)).u8(4));
  Seed storm(HOST);
  folder.write("rekey-too-soon", addRecord(storm, inner(RecordType::REKEY)));
  folder.write("own-rekey", Seed(HOST, 5, 4, 2, 255, 5, 4));
  folder.write("not-authentic", Seed(HOST | RPC, 1, 32, 24, 0, 3, 0).add(eight).add(eight));

  Seed commit(HOST | ENROLMENT, 16);
  addRecord(commit, inner(RecordType::COMMIT));
  folder.write("enrolment-host", addRecord(commit.u8(16, 6), inner(RecordType::PING, eight)));
  Seed committed(ENROLMENT, 16);
  folder.write("enrolment-guest", addRecord(committed, inner(RecordType::COMMIT)).u8(16, 6));
  Seed early(HOST | ENROLMENT);
  folder.write("record-before-commit", addRecord(early, inner(RecordType::PING, eight)));

  Seed bulk(HOST, 7, 10, 0);
  addRecord(bulk, inner(RecordType::BULK, four, BULK_CREDIT, 2));
  addRecord(bulk.u8(9, 0, 100, 0), inner(RecordType::BULK, eight, 0, 2));
  addRecord(bulk.u8(11, 0, 12, 0), inner(RecordType::BULK, nullptr, BULK_FINISHED, 2));
  folder.write("bulk-opened-here", bulk.u8(4, 14, 0));
  Seed accepted(HOST, 8);
  accepted.u32(1).u32(65536).u8(9, 0).u16(60000);
  addRecord(accepted, inner(RecordType::BULK, eight, 0, 1));
  folder.write("bulk-accepted", addRecord(accepted, inner(RecordType::BULK, one, BULK_RESET, 1)).u8(10, 0, 13, 0));
  Seed waiting(HOST, 7, 17, 0);
  waiting.u16(32000);
  folder.write("bulk-write-waits-for-credit", addRecord(waiting, inner(RecordType::BULK, four, BULK_CREDIT, 2)));
  capnp::MallocMessageBuilder abort;
  abort.initRoot<capnp::rpc::Message>().initAbort();
  Seed aborted(HOST | RPC);
  addRecord(aborted, inner(RecordType::RPC, capnp::messageToFlatArray(abort).asBytes()));
  // Once stopped the session's reading for good.
  folder.write("rpc-abort-then-long-messages", aborted.u8(4, 18, 5, 4, 18, 1));
  folder.write("long-rpc-messages", Seed(HOST | RPC, 3, 100, 18, 5, 4, 3, 255, 18, 2, 4));
  Seed unknown(HOST);
  folder.write("bulk-unknown-channel", addRecord(unknown, inner(RecordType::BULK, eight, 0, 9)));

  for (auto role : {Role::HOST, Role::GUEST}) {
    Seed calls((role == Role::HOST ? HOST : 0) | RPC);
    for (auto& record : realRpc(role == Role::HOST ? Role::GUEST : Role::HOST)) addRecord(calls, record);
    folder.write(role == Role::HOST ? "rpc-calls-to-host" : "rpc-calls-to-guest", calls.u8(6, 4));
  }
}

// Messages ----------------------------------------------------------------------------------------------------------

void addMessage(Seed& seed, capnp::MessageBuilder& message) {
  auto words = capnp::messageToFlatArray(message);
  seed.add(words.asBytes());
}

void writeMessageSeeds(kj::StringPtr root) {
  SeedFolder folder(root, "message");
  // Mode 0: u8 number of sizes of pieces, sizes in words less one, the stream.
  Seed rpc(0, 2, 0, 2);
  Seed rpcWhole(0, 0);
  for (auto& record : realRpc(Role::GUEST)) {
    auto data = record.slice(RECORD_HEADER_BYTES, record.size());
    rpc.add(data);
    rpcWhole.add(data);
  }
  folder.write("rpc-in-pieces", rpc);
  folder.write("rpc", rpcWhole);

  capnp::MallocMessageBuilder small(1, capnp::AllocationStrategy::FIXED_SIZE);
  auto list = small.initRoot<capnp::AnyPointer>().initAs<capnp::List<capnp::Text>>(3);
  for (unsigned i = 0; i < list.size(); ++i) list.set(i, "segment");
  Seed segments(0, 1, 0);
  addMessage(segments, small);
  folder.write("many-segments", segments);

  folder.write("too-many-segments", Seed(0, 0).u32(512).u32(0));
  folder.write("too-large", Seed(0, 0).u32(0).u32(0x00200000));
  folder.write("large-begun", Seed(0, 0).u32(0).u32(0x00100000).u32(0).u32(0));
  // A list of 2^29-1 elements without size, which would cost an hour to walk if nobody counted.
  folder.write("list-of-nothing", Seed(0, 0).u32(0).u32(1).u32(1).u32(0xfffffff8));
  // A struct whose pointer is to itself.
  folder.write("endless", Seed(0, 0).u32(0).u32(2).u32(0).u32(0x00010000).u32(0xfffffff8).u32(0x00010000));

  Confirmation confirmation;
  confirmation.features = 3;
  confirmation.sessionCounter = 7;
  folder.write("confirm", Seed(1).add(encodeConfirmation(confirmation)));
  confirmation.bulk = BulkPurpose{5, {6, 7}};
  folder.write("confirm-bulk", Seed(1).add(encodeConfirmation(confirmation)));
  Acceptance acceptance;
  folder.write("accept", Seed(2).add(encodeAcceptance(acceptance)));
  test::TestRandom random;
  acceptance.linkSecret = LinkSecret::generate(random);
  folder.write("accept-with-secret", Seed(2).add(encodeAcceptance(acceptance)));
}

}  // namespace

void writeSessionSeeds(kj::StringPtr root) {
  writeHandshakeSeeds(root);
  writeEstablishSeeds(root);
  writeRecordSeeds(root);
  writeMessageSeeds(root);
}

}  // namespace postern::fuzz
