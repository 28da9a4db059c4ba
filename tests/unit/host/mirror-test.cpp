// Mirrors of channels, byte by byte, over real sockets to an appliance that a test plays.

#include "host/session/mirror.h"

#include <vector>

#include "protocol/wire-int.h"
#include "tests/unit/host/channel-fixture.h"

namespace postern::host {
namespace {

using test::ChannelLab;
using test::LimitOf;
using test::TestSocket;

struct FixedClock final : public kj::Clock {
  kj::Date now() const override { return kj::UNIX_EPOCH + 1'795'874'400 * kj::SECONDS + 123'456 * kj::MICROSECONDS; }
};

struct Frame {
  int type;
  uint64_t channel;
  std::string payload;
};

// Whole frames out of what came; what is left of one stays.
std::vector<Frame> framesIn(std::string& bytes) {
  std::vector<Frame> frames;
  while (bytes.size() >= 4) {
    auto* at = reinterpret_cast<const kj::byte*>(bytes.data());
    auto length = getLittleEndian<uint32_t>(at);
    REQUIRE(length >= 9);
    REQUIRE(length <= 9 + MAX_BULK_DATA_BYTES);
    if (bytes.size() < 4 + length) break;
    frames.push_back({at[4], getLittleEndian<uint64_t>(at + 5), bytes.substr(13, length - 9)});
    bytes.erase(0, 4 + length);
  }
  return frames;
}

struct Lab {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  FixedClock clock;
  uint64_t dropped = 0;
  TestSocket appliance;
  kj::Own<Mirror> mirror;
  kj::Own<MirroredChannel> channel;

  explicit Lab(bool full, bool reached = true) {
    auto pair = newSocketPair(SOCK_STREAM);
    appliance.fd = kj::mv(pair.second);
    mirror = kj::refcounted<Mirror>(io.unixEventPort, reached ? kj::mv(pair.first) : kj::AutoCloseFd());
    channel = newChannel(0x0102030405060708, full);
  }
  kj::Own<MirroredChannel> newChannel(uint64_t id, bool full) {
    return kj::heap<MirroredChannel>(
        MirroredChannel::Terms{kj::addRef(*mirror), full, kj::str("user:alice"), kj::str("vm:web1")}, id, clock,
        dropped);
  }
  void settle() {
    for (int i = 0; i < 8; ++i) io.waitScope.poll();
  }
};

TEST_CASE("a mirror's frames are what the header says, byte by byte") {
  Lab lab(/* full */ true);
  lab.channel->opened("http", "site-content");
  lab.channel->passed(TrafficWay::THERE, "GET"_kj.asBytes());
  lab.channel->passed(TrafficWay::BACK, "\0ok\xff"_kj.asBytes());
  TrafficCounters traffic;
  traffic.count(TrafficWay::THERE, 3);
  traffic.count(TrafficWay::BACK, 4);
  traffic.throttled = 5 * kj::MILLISECONDS;
  lab.channel->closed("finished", traffic, 2 * kj::SECONDS);
  const std::string id = "\x08\x07\x06\x05\x04\x03\x02\x01";
  const std::string opened =
      "{\"time\":\"2026-11-28T14:00:00.123456Z\",\"who\":\"user:alice\",\"to\":\"vm:web1\",\"service\":\"http\","
      "\"rule\":\"site-content\"}";
  const std::string closed =
      "{\"time\":\"2026-11-28T14:00:00.123456Z\",\"why\":\"finished\",\"bytes-there\":3,\"bytes-back\":4,"
      "\"messages-there\":1,\"messages-back\":1,\"throttled-us\":5000,\"duration-us\":2000000}";
  auto header = [&](size_t payload, char type) {
    return std::string{static_cast<char>(9 + payload), 0, 0, 0, type} + id;
  };
  auto expected = header(opened.size(), 0) + opened + header(3, 1) + "GET" + header(4, 2) + std::string("\0ok\xff", 4) +
                  header(closed.size(), 3) + closed;
  CHECK(lab.appliance.read() == expected);
  CHECK(lab.dropped == 0);
}

TEST_CASE("without `full` there are records, and no bytes") {
  Lab lab(/* full */ false);
  lab.channel->opened("http", "r");
  lab.channel->passed(TrafficWay::THERE, "GET"_kj.asBytes());
  lab.channel->closed("reset", {}, 0 * kj::SECONDS);
  auto bytes = lab.appliance.read();
  auto frames = framesIn(bytes);
  REQUIRE(frames.size() == 2);
  CHECK(frames[0].type == 0);
  CHECK(frames[1].type == 3);
  CHECK(lab.dropped == 0);
}

TEST_CASE("what a name has in it does not break out of the record") {
  Lab lab(false);
  lab.channel = kj::heap<MirroredChannel>(
      MirroredChannel::Terms{kj::addRef(*lab.mirror), false, kj::str("user:a\"b\\c\n\x1b"), kj::str("host")}, 1,
      lab.clock, lab.dropped);
  lab.channel->opened("http", "r");
  auto bytes = lab.appliance.read();
  CHECK(bytes.find("\"who\":\"user:a\\\"b\\\\c??\",") != std::string::npos);
}

// T108
TEST_CASE("an appliance that does not read costs frames, counted and told; the stream stays one of whole frames") {
  Lab lab(true);
  auto piece = kj::heapArray<kj::byte>(MAX_BULK_DATA_BYTES);
  memset(piece.begin(), 'x', piece.size());
  constexpr size_t MANY = 100;
  auto other = lab.newChannel(2, true);
  lab.channel->opened("http", "r");
  for (size_t i = 0; i < MANY; ++i) lab.channel->passed(TrafficWay::THERE, piece);
  other->opened("ssh", "r");
  auto droppedBefore = lab.dropped;
  CHECK(droppedBefore > MANY / 2);
  CHECK(lab.mirror->isBusy());
  // It reads on, here and there a little.
  std::string bytes;
  std::vector<Frame> frames;
  for (int i = 0; i < 2000; ++i) {
    char space[10'000];
    auto got = recv(lab.appliance.fd, space, sizeof(space), MSG_DONTWAIT);
    if (got > 0) bytes.append(space, size_t(got));
    for (auto& frame : framesIn(bytes)) frames.push_back(frame);
    lab.settle();
  }
  CHECK_FALSE(lab.mirror->isBusy());
  CHECK(bytes.empty());
  // Every frame that came is whole; and the next one says how many of its channel are missing.
  for (size_t i = 1; i < frames.size(); ++i) CHECK(frames[i].payload.size() == MAX_BULK_DATA_BYTES);
  CHECK(frames.size() + droppedBefore == MANY + 2);
  lab.channel->passed(TrafficWay::BACK, "end"_kj.asBytes());
  other->passed(TrafficWay::BACK, "end"_kj.asBytes());
  bytes = lab.appliance.read();
  auto after = framesIn(bytes);
  REQUIRE(after.size() == 4);
  CHECK(after[0].type == 4);
  CHECK(after[0].channel == frames[0].channel);
  auto lost = getLittleEndian<uint64_t>(reinterpret_cast<const kj::byte*>(after[0].payload.data()));
  CHECK(after[1].payload == "end");
  CHECK(after[2].type == 4);
  CHECK(after[2].channel == 2);
  CHECK(lost + getLittleEndian<uint64_t>(reinterpret_cast<const kj::byte*>(after[2].payload.data())) == droppedBefore);
  CHECK(after[3].payload == "end");
  CHECK(lab.dropped == droppedBefore);
}

// T108
TEST_CASE("an appliance that closes, at any moment, or was never reached, costs all frames from then on") {
  for (bool isBusy : {false, true}) {
    Lab lab(true);
    lab.channel->opened("http", "r");
    auto piece = kj::heapArray<kj::byte>(MAX_BULK_DATA_BYTES);
    memset(piece.begin(), 0, piece.size());
    for (int i = 0; isBusy && i < 20; ++i) lab.channel->passed(TrafficWay::THERE, piece);
    CHECK(lab.mirror->isBusy() == isBusy);
    lab.appliance.fd = nullptr;
    lab.settle();
    auto before = lab.dropped;
    for (int i = 0; i < 10; ++i) lab.channel->passed(TrafficWay::THERE, piece);
    lab.settle();
    CHECK(lab.dropped == before + 10);
    CHECK_FALSE(lab.mirror->isBusy());
  }
  Lab lab(true, /* reached */ false);
  lab.channel->opened("http", "r");
  lab.channel->closed("finished", {}, 0 * kj::SECONDS);
  CHECK(lab.dropped == 2);
  auto packets = newSocketPair(SOCK_SEQPACKET);
  Mirror wrong(lab.io.unixEventPort, kj::mv(packets.first));
  CHECK_FALSE(wrong.send(Mirror::Frame::OPENED, 1, nullptr));
}

// Of channels -------------------------------------------------------------------------------------------------------

TEST_CASE("all channels of a grant are mirrored over its socket, each from its opening to its end") {
  ChannelLab lab;
  auto pair = newSocketPair(SOCK_STREAM);
  TestSocket appliance{kj::mv(pair.second)};
  test::Terms terms;
  terms.isMirrored = true;
  terms.full = true;
  terms.mirror = kj::mv(pair.first);
  auto caller = lab.introduce({"http"}, kj::mv(terms));
  TestSocket first, second;
  auto id = lab.open(caller, first);
  auto other = lab.open(caller, second);
  first.write("there");
  CHECK(lab.read(*lab.guest.channels[0], 5) == "there");
  lab.write(*lab.guest.channels[0], "back");
  CHECK(lab.readSoon(first, 4) == "back");
  lab.guest.channels[0]->reset();
  std::string bytes;
  std::vector<Frame> frames;
  CHECK(lab.soon([&]() {
    bytes += appliance.read();
    for (auto& frame : framesIn(bytes)) frames.push_back(frame);
    return frames.size() >= 5;
  }));
  REQUIRE(frames.size() == 5);
  CHECK(frames[0].channel == id);
  CHECK(frames[0].type == 0);
  CHECK(frames[0].payload.find("\"who\":\"user:alice\",\"to\":\"vm:web1\",\"service\":\"http\",\"rule\":\"r\"") !=
        std::string::npos);
  CHECK(frames[1].channel == other);
  CHECK((frames[2].type == 1 && frames[2].payload == "there"));
  CHECK((frames[3].type == 2 && frames[3].payload == "back"));
  CHECK(frames[4].type == 3);
  CHECK(frames[4].payload.find("\"why\":\"reset\",\"bytes-there\":5,\"bytes-back\":4") != std::string::npos);
  lab.tellAll();
  CHECK(lab.told().port.mirrorDropped == 0);
}

// T108
TEST_CASE("a mirror that stops to read delays no byte of the channel, and what it misses is told to posternd") {
  ChannelLab lab;
  auto pair = newSocketPair(SOCK_STREAM);
  TestSocket appliance{kj::mv(pair.second)};
  TestSocket target;
  lab.allowQuestions(target, SOCK_STREAM, {}, nullptr, kj::mv(pair.first));
  auto question = lab.askHost("db1", "postgres");
  REQUIRE_FALSE(lab.take(kj::mv(question.answer)).hasRefusal());
  constexpr size_t SIZE = size_t(8) << 20;
  auto much = kj::heapArray<kj::byte>(SIZE);
  memset(much.begin(), 'x', much.size());
  auto writing = question.channel->write(much).eagerlyEvaluate(nullptr);
  size_t got = 0;
  CHECK(lab.soon([&]() {
    got += target.read().size();
    return got == SIZE;
  }));
  question.channel->reset();
  CHECK(lab.soon([&]() {
    lab.tellAll();
    return lab.told().closed.size() == 1;
  }));
  auto& port = lab.told().port;
  CHECK(port.traffic.bytesThere == SIZE);
  CHECK(port.mirrorDropped > 0);
  // Frames of this channel: each piece, and its opening and end.
  auto bytes = appliance.read();
  auto frames = framesIn(bytes);
  CHECK(frames.size() + port.mirrorDropped >= port.traffic.messagesThere + 1);
  CHECK(frames.size() + port.mirrorDropped <= port.traffic.messagesThere + 2);
  CHECK(frames[0].type == 0);
  CHECK(frames[0].payload.find("\"to\":\"vm:db1\"") != std::string::npos);
}

}  // namespace
}  // namespace postern::host
