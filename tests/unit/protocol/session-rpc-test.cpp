// RPC over a session: what hostile messages, full queues and failures come to.

#include <capnp/rpc.capnp.h>
#include <capnp/serialize.h>
#include <doctest/doctest.h>

#include <functional>

#include "protocol/limits.h"
#include "protocol/rpc-system.h"
#include "protocol/wire-int.h"
#include "tests/support/echo.h"
#include "tests/support/raw-peer.h"

namespace postern {
namespace {

using test::bytesOf;
using test::copyOf;
using test::Echo;
using test::EchoServer;
using test::innerBytes;
using test::RawBytes;
using test::RawMeeting;
using test::RawRecord;
using test::SessionLab;

constexpr Role BOTH[] = {Role::GUEST, Role::HOST};

RawBytes serialise(capnp::MessageBuilder& message) {
  auto words = capnp::messageToFlatArray(message);
  return copyOf(words.asBytes());
}

// Sends serialised messages in records of at most `step` bytes.
void sendRpc(RawMeeting& meeting, const RawBytes& bytes, size_t step = 60000) {
  for (size_t at = 0; at < bytes.size(); at += step) {
    size_t n = std::min(step, bytes.size() - at);
    meeting.peer.send(RecordType::RPC, kj::arrayPtr(bytes.data() + at, n));
  }
}

// A call of Echo on the bootstrap capability (question 1; the bootstrap is question 0).
RawBytes bootstrapAndCall(uint16_t method, const std::function<void(capnp::AnyPointer::Builder)>& fill) {
  RawBytes all;
  {
    capnp::MallocMessageBuilder message;
    message.initRoot<capnp::rpc::Message>().initBootstrap().setQuestionId(0);
    all = serialise(message);
  }
  capnp::MallocMessageBuilder message;
  auto call = message.initRoot<capnp::rpc::Message>().initCall();
  call.setQuestionId(1);
  call.setInterfaceId(capnp::typeId<Echo>());
  call.setMethodId(method);
  call.initTarget().initPromisedAnswer().setQuestionId(0);
  fill(call.initParams().getContent());
  auto bytes = serialise(message);
  all.insert(all.end(), bytes.begin(), bytes.end());
  return all;
}

// The answers that came back, by question.
struct Answers {
  std::vector<kj::Array<capnp::word>> storage;
  kj::Vector<kj::Own<capnp::FlatArrayMessageReader>> readers;

  explicit Answers(std::vector<RawRecord> records) {
    RawBytes stream;
    for (auto& record : records) {
      if (record.is(RecordType::RPC)) stream.insert(stream.end(), record.data.begin(), record.data.end());
    }
    auto words = kj::heapArray<capnp::word>(stream.size() / 8);
    memcpy(words.begin(), stream.data(), stream.size());
    kj::ArrayPtr<const capnp::word> rest = words;
    while (rest.size() > 0) {
      readers.add(kj::heap<capnp::FlatArrayMessageReader>(rest));
      rest = kj::arrayPtr(readers.back()->getEnd(), rest.end());
    }
    storage.push_back(kj::mv(words));
  }

  kj::Maybe<capnp::rpc::Return::Reader> returned(uint32_t question) {
    for (auto& reader : readers) {
      auto message = reader->getRoot<capnp::rpc::Message>();
      if (message.isReturn() && message.getReturn().getAnswerId() == question) return message.getReturn();
    }
    return nullptr;
  }
  bool aborted() {
    for (auto& reader : readers) {
      if (reader->getRoot<capnp::rpc::Message>().isAbort()) return true;
    }
    return false;
  }
};

// A real host with an Echo server, and a raw guest.
struct ServedMeeting : RawMeeting {
  ServedMeeting()
      : RawMeeting(Role::HOST),
        rpc(kj::heap<RpcConnection>(*session, Role::HOST, kj::heap<EchoServer>(), [](kj::StringPtr) {})) {
    settle();
    peer.receiveAll();  // the bootstrap that the host asks for
  }
  kj::Own<RpcConnection> rpc;
};

void checkBreach(RawMeeting& meeting, kj::StringPtr detail) {
  auto end = meeting.end();
  CHECK(end.reason == EndReason::PROTOCOL_ERROR);
  CHECK((end.detail == detail));
  auto records = meeting.peer.receiveAll();
  REQUIRE(!records.empty());
  CHECK(records.back().is(RecordType::CLOSE));
}

// Messages as bytes ------------------------------------------------------------------------------------------------

// T25
TEST_CASE("a message with a million segments ends the session before anything is allocated") {
  RawMeeting meeting(Role::GUEST);
  kj::byte table[8];
  putLittleEndian<uint64_t>(999999, table);
  meeting.peer.send(RecordType::RPC, table);
  checkBreach(meeting, "RPC message with too many segments");
}

TEST_CASE("a message of 512 segments of 2^32 - 1 words ends the session before anything is allocated") {
  RawMeeting meeting(Role::HOST);
  RawBytes table(4 + 4 * 512 + 4, 0xff);
  putLittleEndian<uint32_t>(511, table.data());
  meeting.peer.send(RecordType::RPC, bytesOf(table));
  checkBreach(meeting, "RPC message over the size limit");
}

// T25
TEST_CASE("a message one word over the limit ends the session, and one of exactly the limit does not") {
  for (uint32_t extra : {0u, 1u}) {
    RawMeeting meeting(Role::HOST);
    RawBytes message(8);
    putLittleEndian<uint32_t>(uint32_t(limits::MAX_RPC_MESSAGE_BYTES / 8) - 1 + extra, &message[4]);
    meeting.peer.send(RecordType::RPC, bytesOf(message));
    meeting.settle();
    if (extra == 1) {
      checkBreach(meeting, "RPC message over the size limit");
    } else {
      CHECK(!meeting.session->isOver());
    }
  }
}

TEST_CASE("a call is carried out wherever records cut its messages") {
  auto bytes =
      bootstrapAndCall(1, [](capnp::AnyPointer::Builder params) { params.initAs<Echo::PingParams>().setNumber(4711); });
  for (size_t cut = 0; cut < bytes.size(); cut += 8) {
    ServedMeeting meeting;
    if (cut > 0) meeting.peer.send(RecordType::RPC, kj::arrayPtr(bytes.data(), cut));
    meeting.settle();
    meeting.peer.send(RecordType::RPC, kj::arrayPtr(bytes.data() + cut, bytes.size() - cut));
    Answers answers(meeting.peer.receiveAll());
    auto result = KJ_ASSERT_NONNULL(answers.returned(1));
    REQUIRE(result.isResults());
    CHECK(result.getResults().getContent().getAs<Echo::PingResults>().getNumber() == 4711);
  }
}

// T19
TEST_CASE("a message that CLOSE cuts off is not an end but a failure") {
  RawMeeting meeting(Role::HOST);
  kj::byte half[8];
  putLittleEndian<uint64_t>(uint64_t(10) << 32, half);  // one segment of ten words, which do not come
  meeting.peer.send(RecordType::RPC, half);
  kj::byte code = uint8_t(CloseCode::GOODBYE);
  meeting.peer.send(RecordType::CLOSE, kj::arrayPtr(&code, 1));
  CHECK(meeting.end().reason == EndReason::CLOSED_BY_PEER);
  CHECK_THROWS(meeting.session->rpcStream().tryReadMessage(nullptr, {}, nullptr).wait(meeting.lab.waitScope));
}

TEST_CASE("what came before a clean CLOSE is delivered, then the end") {
  RawMeeting meeting(Role::GUEST);
  capnp::MallocMessageBuilder message;
  message.initRoot<capnp::AnyPointer>().setAs<capnp::Text>("before");
  sendRpc(meeting, serialise(message));
  kj::byte code = uint8_t(CloseCode::GOODBYE);
  meeting.peer.send(RecordType::CLOSE, kj::arrayPtr(&code, 1));
  meeting.end();
  auto& stream = meeting.session->rpcStream();
  auto first = stream.tryReadMessage(nullptr, {}, nullptr).wait(meeting.lab.waitScope);
  auto text = KJ_ASSERT_NONNULL(first).reader->getRoot<capnp::AnyPointer>().getAs<capnp::Text>();
  CHECK((text == "before"));
  CHECK((stream.tryReadMessage(nullptr, {}, nullptr).wait(meeting.lab.waitScope) == nullptr));
}

// Messages as structures -------------------------------------------------------------------------------------------

// The call ends in an exception, or the RPC connection does; the process and the session's other business go on.
void checkHarmless(ServedMeeting& meeting) {
  Answers answers(meeting.peer.receiveAll());
  bool failed = answers.aborted();
  KJ_IF_MAYBE (result, answers.returned(1)) failed = failed || result->isException();
  CHECK(failed);
  if (meeting.session->isOver()) return;
  meeting.peer.sendNumber(RecordType::PING, 3);
  auto records = meeting.peer.receiveAll();
  REQUIRE(!records.empty());
  CHECK(records.back().is(RecordType::PONG));
}

// What reading all of a message comes to: a copy, as the RPC system makes one of a message that it does not know. True
// when it failed.
bool copyFails(const RawBytes& bytes) {
  RawMeeting meeting(Role::HOST);
  sendRpc(meeting, bytes);
  auto read = meeting.session->rpcStream().tryReadMessage(nullptr, rpcReaderOptions(), nullptr);
  auto message = read.wait(meeting.lab.waitScope);
  auto exception = kj::runCatchingExceptions([&]() {
    capnp::MallocMessageBuilder copy;
    copy.setRoot(KJ_ASSERT_NONNULL(message).reader->getRoot<capnp::AnyPointer>());
  });
  return exception != nullptr;
}

RawBytes oneSegment(const std::vector<uint64_t>& words) {
  RawBytes bytes(8 + 8 * words.size());
  putLittleEndian<uint32_t>(uint32_t(words.size()), &bytes[4]);
  for (size_t i = 0; i < words.size(); ++i) putLittleEndian<uint64_t>(words[i], &bytes[8 + 8 * i]);
  return bytes;
}

constexpr uint64_t STRUCT_OF_ONE_POINTER = uint64_t(1) << 48;

// T26
TEST_CASE("nesting up to the limit is read, and not beyond") {
  for (size_t depth : {size_t(limits::RPC_NESTING) - 1, size_t(limits::RPC_NESTING) + 1, size_t(1000000)}) {
    // Each struct's pointer points right behind itself; the last is null.
    std::vector<uint64_t> words(depth, STRUCT_OF_ONE_POINTER);
    words.push_back(0);
    CHECK(copyFails(oneSegment(words)) == (depth > size_t(limits::RPC_NESTING)));
  }
}

// T26
TEST_CASE("pointers that all point to one large object are followed until the limit and no further") {
  for (uint64_t count : {uint64_t(1000), uint64_t(4000)}) {
    constexpr uint64_t OBJECT_WORDS = 1000;
    std::vector<uint64_t> words;
    words.push_back(1 | (uint64_t(6) << 32) | (count << 35));
    for (uint64_t i = 1; i <= count; ++i) {
      words.push_back(1 | ((count - i) << 2) | (uint64_t(2) << 32) | ((8 * OBJECT_WORDS) << 35));
    }
    words.resize(words.size() + OBJECT_WORDS, 0x4141414141414141);
    CHECK(copyFails(oneSegment(words)) == (count * OBJECT_WORDS > limits::RPC_TRAVERSAL_WORDS));
  }
}

TEST_CASE("lists of elements without a size cost what their count says") {
  // 2^29 - 1 structs of nothing behind one tag; a list of such lists.
  constexpr uint64_t MANY = (uint64_t(1) << 29) - 1;
  CHECK(copyFails(oneSegment({1 | (uint64_t(7) << 32), MANY << 2})));
  CHECK(copyFails(oneSegment({1 | (uint64_t(6) << 32) | (uint64_t(2) << 35),
                              1 | (uint64_t(1) << 2) | (uint64_t(7) << 32), 1 | (uint64_t(7) << 32), MANY << 2})));
}

TEST_CASE("far pointers in a circle, and to segments that are not there, end in an exception") {
  for (uint64_t pointer :
       {uint64_t(2), uint64_t(2) | (uint64_t(1) << 32), uint64_t(6), uint64_t(6) | (uint64_t(1) << 32),
        uint64_t(2) | (uint64_t(0xffffffff) << 32), uint64_t(2) | (uint64_t(0x1fffffff) << 3)}) {
    CHECK(copyFails(oneSegment({pointer, pointer})));
  }
}

TEST_CASE("an unknown message that blows up when it is copied does no harm") {
  ServedMeeting meeting;
  constexpr uint64_t COUNT = 4000, OBJECT_WORDS = 1000;
  // Message { data word: an unknown union tag; pointer: the bomb }.
  std::vector<uint64_t> words = {(uint64_t(1) << 32) | STRUCT_OF_ONE_POINTER, 999,
                                 1 | (uint64_t(6) << 32) | (COUNT << 35)};
  for (uint64_t i = 1; i <= COUNT; ++i) {
    words.push_back(1 | ((COUNT - i) << 2) | (uint64_t(2) << 32) | ((8 * OBJECT_WORDS) << 35));
  }
  words.resize(words.size() + OBJECT_WORDS);
  sendRpc(meeting, oneSegment(words));
  meeting.settle();
  if (!meeting.session->isOver()) {
    meeting.peer.sendNumber(RecordType::PING, 3);
    auto records = meeting.peer.receiveAll();
    REQUIRE(!records.empty());
    CHECK(records.back().is(RecordType::PONG));
  }
}

// A message whose content is made word by word: content pointer first.
RawBytes callWithRawContent(const std::function<void(uint64_t*, size_t)>& fill, size_t words) {
  RawBytes all = bootstrapAndCall(0, [&](capnp::AnyPointer::Builder params) {
    auto list = params.initAs<capnp::Data>(static_cast<kj::uint>(8 * words));
    for (auto& b : list) b = 0xab;
  });
  // The data's words are the last of the message; its pointer is rewritten to a struct of no data and one pointer that
  // begins there.
  REQUIRE(all.size() >= 8 * words);
  auto* data = reinterpret_cast<uint64_t*>(all.data() + all.size() - 8 * words);
  bool found = false;
  for (auto* at = data - 1; at > data - 12; --at) {
    bool isListPointer = (*at & 3) == 1 && (*at >> 35) == 8 * words;
    if (!isListPointer) continue;
    auto offset = uint64_t(data - (at + 1));
    *at = (offset << 2) | (uint64_t(1) << 48);
    found = true;
    break;
  }
  REQUIRE(found);
  fill(data, words);
  return all;
}

TEST_CASE("a list that claims more than the message has ends in an exception") {
  for (uint64_t size : {2u, 3u, 5u, 6u}) {  // bytes, 16-bit, 64-bit, pointers
    ServedMeeting meeting;
    sendRpc(meeting,
            callWithRawContent(
                [&](uint64_t* words, size_t) { words[0] = 1 | (size << 32) | (uint64_t(0x1fffffff) << 35); }, 4));
    checkHarmless(meeting);
  }
}

TEST_CASE("a list of 2^29 elements without a size, an amplified pointer, ends in an exception") {
  ServedMeeting meeting;
  sendRpc(meeting,
          callWithRawContent([&](uint64_t* words, size_t) { words[0] = 1 | (uint64_t(0x1fffffff) << 35); }, 4));
  checkHarmless(meeting);
}

TEST_CASE("a pointer that leaves the message ends in an exception") {
  for (uint64_t pointer :
       {uint64_t(0x7ffffffc), uint64_t(0x80000000) | (uint64_t(1) << 48), uint64_t(2) | (uint64_t(77) << 32),
        uint64_t(2) | (uint64_t(0xffff) << 3), uint64_t(6), ~uint64_t(0)}) {
    ServedMeeting meeting;
    sendRpc(meeting, callWithRawContent([&](uint64_t* words, size_t) { words[0] = pointer; }, 2));
    checkHarmless(meeting);
  }
}

TEST_CASE("words that are no RPC message do no harm, whatever they are") {
  test::TestRandom random(7);
  for (int round = 0; round < 200; ++round) {
    ServedMeeting meeting;
    size_t words = 1 + random.next() % 30;
    RawBytes message(8 + 8 * words);
    putLittleEndian<uint32_t>(uint32_t(words), &message[4]);
    for (size_t i = 0; i < words; ++i) {
      putLittleEndian<uint64_t>(random.next() >> (random.next() % 64), &message[8 + 8 * i]);
    }
    if (round % 2 == 0) putLittleEndian<uint64_t>(uint64_t(words > 2 ? 1 : 0) << 48 | uint64_t(1) << 32, &message[8]);
    sendRpc(meeting, message);
    meeting.settle();
    if (meeting.session->isOver()) continue;
    meeting.peer.sendNumber(RecordType::PING, 3);
    bool answered = false;
    for (auto& record : meeting.peer.receiveAll()) answered = answered || record.is(RecordType::PONG);
    CHECK(answered);
  }
}

// Failures -----------------------------------------------------------------------------------------------------------

kj::Exception failureOf(kj::FunctionParam<void()> action) {
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { action(); })) {
    return kj::mv(*exception);
  }
  FAIL("nothing failed");
  KJ_UNREACHABLE;
}

struct Pair {
  explicit Pair(SessionLab& lab)
      : sessions(lab.connect()),
        guest(kj::heap<RpcConnection>(*sessions.guest, Role::GUEST, kj::heap<EchoServer>(), [](kj::StringPtr) {})),
        host(kj::heap<RpcConnection>(*sessions.host, Role::HOST, kj::heap<EchoServer>(), [](kj::StringPtr) {})) {}
  SessionLab::Sessions sessions;
  kj::Own<RpcConnection> guest;
  kj::Own<RpcConnection> host;

  Echo::Client from(Role role) { return (role == Role::GUEST ? guest : host)->peer().castAs<Echo>(); }
};

TEST_CASE("calls in progress fail with DISCONNECTED when the link ends without CLOSE, and so do later ones") {
  for (auto role : BOTH) {
    SessionLab lab;
    Pair pair(lab);
    auto hanging = pair.from(role).hangRequest().send().ignoreResult().eagerlyEvaluate(nullptr);
    lab.settle();
    (role == Role::GUEST ? lab.wire.toGuest : lab.wire.toHost).end();
    lab.settle();
    auto failure = failureOf([&]() { hanging.wait(lab.waitScope); });
    CHECK((failure.getType() == kj::Exception::Type::DISCONNECTED));
    auto later = failureOf([&]() { pair.from(role).pingRequest().send().wait(lab.waitScope); });
    CHECK((later.getType() == kj::Exception::Type::DISCONNECTED));
  }
}

TEST_CASE("calls in progress fail with DISCONNECTED when either end closes, drops its session, or breaks the rules") {
  for (auto role : BOTH) {
    for (int how = 0; how < 4; ++how) {
      SessionLab lab;
      Pair pair(lab);
      auto hanging = pair.from(role).hangRequest().send().ignoreResult().eagerlyEvaluate(nullptr);
      lab.settle();
      auto& own = pair.sessions.at(role);
      auto& other = pair.sessions.at(role == Role::GUEST ? Role::HOST : Role::GUEST);
      if (how == 0) own.close(CloseCode::GOODBYE).wait(lab.waitScope);
      if (how == 1) other.close(CloseCode::GOODBYE).wait(lab.waitScope);
      if (how == 2) {
        (role == Role::GUEST ? pair.host : pair.guest) = nullptr;
        (role == Role::GUEST ? pair.sessions.host : pair.sessions.guest) = nullptr;
      }
      if (how == 3) {
        kj::byte garbage[100] = {};
        (role == Role::GUEST ? lab.wire.toGuest : lab.wire.toHost).inject(garbage);
      }
      lab.settle();
      auto failure = failureOf([&]() { hanging.wait(lab.waitScope); });
      CHECK((failure.getType() == kj::Exception::Type::DISCONNECTED));
    }
  }
}

TEST_CASE("a write that fails in the background fails calls in progress and later writes") {
  for (auto role : BOTH) {
    SessionLab lab;
    Pair pair(lab);
    auto& out = role == Role::GUEST ? lab.wire.toHost : lab.wire.toGuest;
    auto hanging = pair.from(role).hangRequest().send().ignoreResult().eagerlyEvaluate(nullptr);
    lab.settle();
    out.cutAfter = out.written() + 10;
    auto next = pair.from(role).pingRequest().send().ignoreResult().eagerlyEvaluate(nullptr);
    lab.settle();
    CHECK((failureOf([&]() { hanging.wait(lab.waitScope); }).getType() == kj::Exception::Type::DISCONNECTED));
    CHECK((failureOf([&]() { next.wait(lab.waitScope); }).getType() == kj::Exception::Type::DISCONNECTED));
    auto written = failureOf([&]() {
      capnp::MallocMessageBuilder message;
      message.initRoot<capnp::AnyPointer>();
      pair.sessions.at(role).rpcStream().writeMessage(nullptr, message.getSegmentsForOutput()).wait(lab.waitScope);
    });
    CHECK((written.getType() == kj::Exception::Type::DISCONNECTED));
  }
}

TEST_CASE("a message that cannot be sent fails calls in progress rather than hang them") {
  SessionLab lab;
  Pair pair(lab);
  auto hanging = pair.from(Role::GUEST).hangRequest().send().ignoreResult().eagerlyEvaluate(nullptr);
  lab.settle();
  // 16 MiB of words in many segments: the RPC system lets it through, and with its table it is over the limit.
  auto segment = kj::heapArray<capnp::word>((limits::MAX_RPC_MESSAGE_BYTES / 8 - 1) / 3);
  kj::ArrayPtr<const capnp::word> segments[] = {segment, segment, segment, segment.slice(0, 2)};
  auto& stream = pair.sessions.guest->rpcStream();
  CHECK_THROWS(stream.writeMessage(nullptr, segments).wait(lab.waitScope));
  CHECK((failureOf([&]() { hanging.wait(lab.waitScope); }).getType() == kj::Exception::Type::DISCONNECTED));
  CHECK_THROWS(stream.writeMessage(nullptr, kj::arrayPtr(segments + 3, 1)).wait(lab.waitScope));
  // The session itself goes on.
  pair.sessions.guest->ping().wait(lab.waitScope);
  pair.sessions.host->ping().wait(lab.waitScope);
}

TEST_CASE("a write waits above the queue's limit, and fails when the session ends meanwhile") {
  RawMeeting meeting(Role::HOST);
  meeting.lab.wire.toGuest.capacity = 100;
  auto segment = kj::heapArray<capnp::word>(limits::RPC_QUEUE_BYTES / 8);
  kj::ArrayPtr<const capnp::word> segments[] = {segment};
  auto& stream = meeting.session->rpcStream();
  auto first = stream.writeMessage(nullptr, segments);
  auto second = stream.writeMessage(nullptr, segments);
  CHECK(!first.poll(meeting.lab.waitScope));
  CHECK(!second.poll(meeting.lab.waitScope));
  meeting.lab.wire.toHost.end();
  CHECK_THROWS(first.wait(meeting.lab.waitScope));
  CHECK_THROWS(second.wait(meeting.lab.waitScope));
}

// Flow ---------------------------------------------------------------------------------------------------------------

// T26
TEST_CASE("messages that nobody takes stop the reading of the link, which goes on when they are taken") {
  RawMeeting meeting(Role::HOST);
  auto& wire = meeting.lab.wire.toHost;
  capnp::MallocMessageBuilder message;
  message.initRoot<capnp::AnyPointer>().initAs<capnp::Data>(50000);
  auto bytes = serialise(message);
  constexpr size_t COUNT = 40;
  size_t sent = 0;
  for (size_t i = 0; i < COUNT; ++i) sendRpc(meeting, bytes);
  sent = wire.lying();
  meeting.settle();
  // One read's worth beyond the limit at most is in memory.
  CHECK(wire.lying() >= sent - limits::RPC_INCOMING_BYTES - limits::READ_BYTES - bytes.size());
  CHECK(wire.lying() > 0);
  auto& stream = meeting.session->rpcStream();
  for (size_t i = 0; i < COUNT; ++i) {
    auto got = stream.tryReadMessage(nullptr, {}, nullptr).wait(meeting.lab.waitScope);
    CHECK(KJ_ASSERT_NONNULL(got).reader->getRoot<capnp::AnyPointer>().getAs<capnp::Data>().size() == 50000);
  }
  meeting.settle();
  CHECK(wire.lying() == 0);
  meeting.peer.sendNumber(RecordType::PING, 1);
  CHECK(KJ_ASSERT_NONNULL(meeting.peer.receive()).is(RecordType::PONG));
}

// T26
TEST_CASE("calls that are not answered stop the reading of the link at the flow limit") {
  SessionLab lab;
  Pair pair(lab);
  auto client = pair.from(Role::GUEST);
  kj::Vector<kj::Promise<void>> calls;
  // `hang` ignores what it does not know; 20 MiB of parameters in all.
  constexpr size_t EACH = size_t(1) << 20;
  for (int i = 0; i < 20; ++i) {
    auto request = client.typelessRequest(capnp::typeId<Echo>(), 3, nullptr);
    request.getAs<capnp::AnyPointer>().initAs<capnp::Data>(EACH);
    calls.add(request.send().ignoreResult().eagerlyEvaluate(nullptr));
    lab.settle();
  }
  // What passed is at most the limit, one message more, and what may wait for the RPC system.
  uint64_t passed = pair.sessions.host->bytesReceived();
  CHECK(passed > 8 * limits::RPC_FLOW_WORDS - EACH);
  CHECK(passed < 8 * limits::RPC_FLOW_WORDS + 3 * EACH);
  calls.clear();  // cancelled: Finish messages make room
  lab.settle();
}

// Exceptions ---------------------------------------------------------------------------------------------------------

constexpr kj::StringPtr SECRET = "s3cr3t-of-the-server"_kj;

// Fails in every way that a server can.
class LeakyServer final : public Echo::Server {
 public:
  explicit LeakyServer(kj::Exception::Type type) : type(type) {}

 protected:
  kj::Exception failure() { return kj::Exception(type, SECRET.cStr(), 42, kj::str(SECRET, " in full")); }

  kj::Promise<void> echo(EchoContext) override { return failure(); }
  kj::Promise<void> ping(PingContext) override { kj::throwFatalException(failure()); }
  kj::Promise<void> fail(FailContext context) override {
    KJ_CONTEXT("while handling", SECRET);
    KJ_FAIL_REQUIRE("with macro arguments", SECRET, context.getParams().getText());
  }

 private:
  kj::Exception::Type type;
};

bool contains(const RawBytes& bytes, kj::StringPtr text) {
  return std::search(bytes.begin(), bytes.end(), text.begin(), text.end()) != bytes.end();
}

// T29
TEST_CASE("an exception of each type leaves as its fixed text and nothing else, however it was thrown") {
  for (auto type : {kj::Exception::Type::FAILED, kj::Exception::Type::OVERLOADED, kj::Exception::Type::DISCONNECTED,
                    kj::Exception::Type::UNIMPLEMENTED}) {
    for (uint16_t method : {uint16_t(0), uint16_t(1), uint16_t(2)}) {
      RawMeeting meeting(Role::HOST);
      kj::Vector<kj::String> log;
      RpcConnection rpc(*meeting.session, Role::HOST, kj::heap<LeakyServer>(type),
                        [&](kj::StringPtr text) { log.add(kj::str(text)); });
      sendRpc(meeting, bootstrapAndCall(method, [](capnp::AnyPointer::Builder params) {
                params.initAs<Echo::FailParams>().setText("");
              }));
      auto records = meeting.peer.receiveAll();
      for (auto& record : records) CHECK(!contains(record.data, SECRET));
      Answers answers(kj::mv(records));
      auto result = KJ_ASSERT_NONNULL(answers.returned(1));
      REQUIRE(result.isException());
      auto wanted = method == 2 ? kj::Exception::Type::FAILED : type;
      CHECK((result.getException().getReason() == publicText(wanted)));
      CHECK(kj::uint(result.getException().getType()) == kj::uint(wanted));
      CHECK(log.size() == 1);
      CHECK(strstr(log[0].cStr(), SECRET.cStr()) != nullptr);
    }
  }
}

TEST_CASE("a promised capability that breaks is resolved with public text") {
  RawMeeting meeting(Role::HOST);
  auto paf = kj::newPromiseAndFulfiller<Echo::Client>();
  int seen = 0;
  RpcConnection rpc(*meeting.session, Role::HOST, Echo::Client(kj::mv(paf.promise)), [&](kj::StringPtr text) {
    if (strstr(text.cStr(), SECRET.cStr()) != nullptr) ++seen;
  });
  capnp::MallocMessageBuilder message;
  message.initRoot<capnp::rpc::Message>().initBootstrap().setQuestionId(0);
  sendRpc(meeting, serialise(message));
  meeting.settle();
  paf.fulfiller->reject(KJ_EXCEPTION(FAILED, "broken", SECRET));
  auto records = meeting.peer.receiveAll();
  RawBytes all;
  for (auto& record : records) all.insert(all.end(), record.data.begin(), record.data.end());
  CHECK(!contains(all, SECRET));
  CHECK(contains(all, publicText(kj::Exception::Type::FAILED)));
  CHECK(seen == 1);
  Answers answers(kj::mv(records));
  bool resolved = false;
  for (auto& reader : answers.readers) {
    auto one = reader->getRoot<capnp::rpc::Message>();
    if (one.isResolve()) resolved = one.getResolve().isException();
  }
  CHECK(resolved);
}

// T29
TEST_CASE("when the RPC system has given up, what still comes for it does not stop the session") {
  ServedMeeting meeting;
  capnp::MallocMessageBuilder abort;
  abort.initRoot<capnp::rpc::Message>().initAbort();
  sendRpc(meeting, serialise(abort));
  meeting.settle();
  REQUIRE(!meeting.session->isOver());
  capnp::MallocMessageBuilder message;
  message.initRoot<capnp::AnyPointer>().initAs<capnp::Data>(50000);
  auto bytes = serialise(message);
  for (size_t sent = 0; sent < 4 * limits::RPC_INCOMING_BYTES; sent += bytes.size()) {
    sendRpc(meeting, bytes);
    meeting.settle();
  }
  CHECK(meeting.lab.wire.toHost.lying() == 0);
  meeting.peer.sendNumber(RecordType::PING, 1);
  bool answered = false;
  for (auto& record : meeting.peer.receiveAll()) answered = answered || record.is(RecordType::PONG);
  CHECK(answered);
  meeting.lab.wire.toHost.end();
  meeting.settle();
  CHECK(meeting.session->isOver());
}

TEST_CASE("an abort says why in public text only") {
  ServedMeeting meeting;
  capnp::MallocMessageBuilder message;
  // A Return for a question that was never asked makes the RPC system give up.
  auto result = message.initRoot<capnp::rpc::Message>().initReturn();
  result.setAnswerId(12345);
  result.initResults();
  sendRpc(meeting, serialise(message));
  Answers answers(meeting.peer.receiveAll());
  bool aborted = false;
  for (auto& reader : answers.readers) {
    auto one = reader->getRoot<capnp::rpc::Message>();
    if (!one.isAbort()) continue;
    aborted = true;
    CHECK((one.getAbort().getReason() == publicText(kj::Exception::Type::FAILED)));
  }
  CHECK(aborted);
}

}  // namespace
}  // namespace postern
