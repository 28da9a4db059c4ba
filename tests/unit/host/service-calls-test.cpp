// Connections of programs of the host to services of a guest: from VmCalls.connect to the end of the channel, over a
// real link, with real sockets.

#include "host/session/channels/service-calls.h"

#include "tests/support/comes-to.h"
#include "tests/unit/host/channel-fixture.h"
#include "tests/unit/host/tcp-pair.h"

namespace postern::host {
namespace {

using postern::test::TcpPair;
using test::ChannelLab;
using test::LimitOf;
using test::LinkedGuest;
using test::Posternd;
using test::ServingGuest;
using test::TestSocket;
using Kind = schema::Failure::Kind;
using GuestAnswer = ServingGuest::Answer;

uint64_t idOf(ChannelLab& lab, size_t opened) {
  REQUIRE(lab.soon([&]() { return lab.told().opened.size() > opened; }));
  return lab.told().opened[opened];
}
const test::ToldOfChannels::Closed& closing(ChannelLab& lab, uint64_t id) {
  REQUIRE(lab.soon([&]() {
    lab.tellAll();
    return lab.told().closed.count(id) == 1;
  }));
  return lab.told().closed.at(id);
}

TEST_CASE("a connection carries bytes both ways, each way ends by itself, and the counters are those of the bytes") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  TestSocket mine;
  auto id = lab.open(caller, mine);
  CHECK(id != 0);
  CHECK(idOf(lab, 0) == id);
  REQUIRE(lab.guest.asked.size() == 1);
  CHECK((lab.guest.asked[0] == "http by alice"));
  auto& channel = *lab.guest.channels[0];
  mine.write("GET");
  CHECK(lab.read(channel, 3) == "GET");
  mine.write(" /");
  CHECK(lab.read(channel, 2) == " /");
  mine.finish();
  CHECK((lab.endOf(channel) == BulkEnd::FINISHED));
  lab.write(channel, "answer");
  CHECK(lab.readSoon(mine, 6) == "answer");
  CHECK(lab.told().closed.empty());
  channel.finish();
  auto& closed = closing(lab, id);
  CHECK((closed.why == "finished"));
  CHECK(closed.traffic.bytesThere == 5);
  CHECK(closed.traffic.messagesThere == 2);
  CHECK(closed.traffic.bytesBack == 6);
  CHECK(closed.traffic.messagesBack == 1);
  CHECK(closed.traffic.throttled == 0);
  // The port counts what goes out of the VM as `there`; and it was told before.
  CHECK(closed.countersBefore > 0);
  auto& port = lab.told().port;
  CHECK(port.opened == 1);
  CHECK(port.active == 0);
  CHECK(port.traffic.bytesThere == 6);
  CHECK(port.traffic.bytesBack == 5);
  auto& rule = lab.told().rules.at("r");
  CHECK(rule.opened == 1);
  CHECK(rule.traffic.bytesThere == 5);
  CHECK(mine.isOver());
}

TEST_CASE("16 MiB each way at once arrive as they were, and are counted to the byte") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  TestSocket mine;
  auto id = lab.open(caller, mine);
  auto& channel = *lab.guest.channels[0];
  constexpr size_t SIZE = size_t(16) << 20;
  auto pattern = [](size_t i) { return static_cast<kj::byte>(i * 2654435761u >> 13); };
  auto there = kj::heapArray<kj::byte>(SIZE);
  for (size_t i = 0; i < SIZE; ++i) there[i] = pattern(i);
  auto writing = channel.write(there).then([&](bool sent) {
    CHECK(sent);
    channel.finish();
  });
  auto written = writing.eagerlyEvaluate(nullptr);
  size_t sent = 0, gotByGuest = 0, gotByCaller = 0;
  bool wrong = false, guestDone = false, callerDone = false;
  kj::Function<kj::Promise<void>()> readAll = [&]() -> kj::Promise<void> {
    return channel.read().then([&](kj::OneOf<BulkChunk, BulkEnd> got) -> kj::Promise<void> {
      if (got.is<BulkEnd>()) {
        guestDone = true;
        return kj::READY_NOW;
      }
      for (auto byte : got.get<BulkChunk>().bytes()) wrong |= byte != pattern(gotByGuest++ + 7);
      return readAll();
    });
  };
  auto reading = readAll().eagerlyEvaluate(nullptr);
  auto back = kj::heapArray<kj::byte>(SIZE);
  for (size_t i = 0; i < SIZE; ++i) back[i] = pattern(i + 7);
  CHECK(lab.soon([&]() {
    auto n = ::send(mine.fd, back.begin() + sent, SIZE - sent, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n > 0) sent += size_t(n);
    if (sent == SIZE) mine.finish();
    bool ended = false;
    for (auto byte : mine.read(&ended)) wrong |= static_cast<kj::byte>(byte) != pattern(gotByCaller++);
    callerDone |= ended;
    return callerDone && guestDone;
  }));
  CHECK_FALSE(wrong);
  CHECK(gotByGuest == SIZE);
  CHECK(gotByCaller == SIZE);
  auto& closed = closing(lab, id);
  CHECK((closed.why == "finished"));
  CHECK(closed.traffic.bytesThere == SIZE);
  CHECK(closed.traffic.bytesBack == SIZE);
  CHECK(lab.told().port.traffic.bytesThere == SIZE);
}

// T109
TEST_CASE("what was not granted does not reach the guest, service.* neither, and no name that is none") {
  ChannelLab lab;
  auto caller = lab.introduce({"http", "*"});
  auto kind = [&](kj::StringPtr service) {
    TestSocket mine;
    return lab.take(lab.connect(caller, mine, service)).getFailure().getKind();
  };
  CHECK((kind("ssh") == Kind::DENIED));
  CHECK((kind("httpx") == Kind::DENIED));
  for (auto name : {"*", "", "a.b", "-a", "a b", "../x"}) CHECK((kind(name) == Kind::INVALID));
  CHECK((kind(kj::str(kj::repeat('a', 65))) == Kind::INVALID));
  // In the calls, and without terms.
  auto bare = lab.posternd->introduce(lab, 8, {"service.http"_kj});
  TestSocket mine;
  CHECK((lab.take(lab.connect(bare, mine)).getFailure().getKind() == Kind::DENIED));
  CHECK(lab.guest.asked.empty());
  CHECK((kind("http") == static_cast<Kind>(0)));
  CHECK(lab.guest.asked.size() == 1);
}

// T109
TEST_CASE("only a connected stream socket is taken for a connection's stream") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  auto kind = [&](kj::AutoCloseFd fd) { return lab.take(lab.connectWith(caller, kj::mv(fd))).getFailure().getKind(); };
  auto openFile = [](const char* path) { return kj::AutoCloseFd(open(path, O_RDWR | O_CLOEXEC)); };
  TestSocket mine;
  for (int type : {SOCK_SEQPACKET, SOCK_DGRAM}) {
    CHECK((lab.take(lab.connect(caller, mine, "http", type)).getFailure().getKind() == Kind::INVALID));
  }
  CHECK((kind(nullptr) == Kind::INVALID));
  CHECK((kind(openFile("/dev/null")) == Kind::INVALID));
  CHECK((kind(kj::AutoCloseFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))) == Kind::INVALID));
  CHECK((kind(kj::AutoCloseFd(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0))) == Kind::INVALID));
  CHECK((kind(kj::AutoCloseFd(socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0))) == Kind::INVALID));
  kj::AutoCloseFd listening(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(listen(listening, 1) == 0);
  CHECK((kind(kj::mv(listening)) == Kind::INVALID));
  struct sockaddr_un unnamed {};
  unnamed.sun_family = AF_UNIX;
  kj::AutoCloseFd local(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  REQUIRE(bind(local, reinterpret_cast<struct sockaddr*>(&unnamed), sizeof(sa_family_t)) == 0);
  REQUIRE(listen(local, 1) == 0);
  CHECK((kind(kj::mv(local)) == Kind::INVALID));
  CHECK(lab.guest.asked.empty());
  lab.tellAll();
  CHECK(lab.told().port.active == 0);
  CHECK((lab.told().refused.front() == "7 http: invalid x1"));
}

TEST_CASE("a caller may hand over a TCP socket that it has accepted: it carries the bytes, and a reset is a reset") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  TcpPair first, second;
  TestSocket mine{kj::mv(first.ours)};
  auto id = lab.take(lab.connectWith(caller, kj::mv(first.theirs))).getChannel();
  auto& channel = *lab.guest.channels[0];
  mine.write("hello");
  CHECK(lab.read(channel, 5) == "hello");
  lab.write(channel, "world");
  CHECK(lab.readSoon(mine, 5) == "world");
  channel.finish();
  mine.finish();
  CHECK((lab.endOf(channel) == BulkEnd::FINISHED));
  CHECK((closing(lab, id).why == "finished"));
  TestSocket other{kj::mv(second.ours)};
  id = lab.take(lab.connectWith(caller, kj::mv(second.theirs))).getChannel();
  lab.guest.channels[1]->reset();
  CHECK((closing(lab, id).why == "reset"));
  bool isReset = false;
  CHECK(lab.soon([&]() {
    char byte;
    if (recv(other.fd, &byte, 1, MSG_DONTWAIT) < 0 && errno == ECONNRESET) isReset = true;
    return isReset;
  }));
}

TEST_CASE("a guest's refusal is told with its lock, rule and what would allow it, and counted") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  struct {
    GuestAnswer answer;
    Kind kind;
    kj::StringPtr why;
  } cases[] = {{GuestAnswer::DENIED, Kind::DENIED, "7 http: denied by the guest x1"},
               {GuestAnswer::NOT_EXPORTED, Kind::REFUSED, "7 http: refused x1"},
               {GuestAnswer::NOT_REACHED, Kind::FAILED, "7 http: failed x1"},
               {GuestAnswer::FAILS, Kind::FAILED, "7 http: failed x1"}};
  for (auto& expected : cases) {
    lab.guest.answer = expected.answer;
    TestSocket mine;
    auto refused = lab.take(lab.connect(caller, mine));
    CHECK((refused.getFailure().getKind() == expected.kind));
    CHECK(refused.getChannel() == 0);
    CHECK(strstr(refused.getFailure().getText().cStr(), "secret") == nullptr);
    if (expected.answer == GuestAnswer::DENIED) {
      CHECK((refused.getFailure().getLock() == schema::Failure::Lock::GUEST));
      CHECK((refused.getFailure().getRule() == "theirs"));
      CHECK((refused.getFailure().getSuggestion() == "[[allow]]\n"));
    }
    lab.tellAll();
    CHECK((lab.told().refused.back() == expected.why));
    CHECK(lab.soon([&]() { return mine.isOver(); }));
  }
  CHECK(lab.told().port.refused == 4);
  CHECK(lab.told().port.opened == 0);
  CHECK(lab.told().rules.at("r").refused == 4);
  CHECK(lab.told().opened.empty());
  CHECK(lab.soon([&]() { return lab.guestSession().bulk().openChannels() == 0; }));
}

TEST_CASE("a guest that does not answer has ten seconds, one that is not there none") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  lab.guest.answer = GuestAnswer::NEVER;
  TestSocket mine;
  auto waiting = lab.connect(caller, mine);
  lab.advance(SERVICE_CALL_DEADLINE - 1 * kj::SECONDS);
  CHECK_FALSE(waiting.poll(lab.io.waitScope));
  lab.advance(1 * kj::SECONDS);
  CHECK((lab.take(kj::mv(waiting)).getFailure().getKind() == Kind::TIMED_OUT));
  auto cut = lab.connect(caller, mine);
  lab.kill(lab.linked.guest);
  CHECK((lab.take(kj::mv(cut)).getFailure().getKind() == Kind::NOT_CONNECTED));
  CHECK((lab.refusedKind(caller) == Kind::NOT_CONNECTED));
  CHECK((lab.take(caller.calls.servicesRequest().send()).getFailure().getKind() == Kind::NOT_CONNECTED));
  lab.tellAll();
  CHECK((lab.told().refused.back() == "7 http: not connected x1"));
}

TEST_CASE(
    "a connection that its caller gives up while the guest is asked is counted and told like one that was refused") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  lab.guest.answer = GuestAnswer::NEVER;
  TestSocket mine;
  {
    auto waiting = lab.connect(caller, mine);
    REQUIRE(lab.soon([&]() { return lab.guest.asked.size() == 1; }));
  }
  CHECK(lab.soon([&]() { return mine.isOver(); }));
  lab.tellAll();
  REQUIRE(lab.told().refused.size() == 1);
  CHECK((lab.told().refused[0] == "7 http: given up x1"));
  CHECK(lab.told().port.refused == 1);
}

// T104
TEST_CASE("open and calls of the port and of the rule refuse one too many, and places come free again") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"}, {LimitOf{0, 0, /* open */ 2}});
  TestSocket first, second, third;
  auto id = lab.open(caller, first);
  lab.open(caller, second);
  auto refused = lab.take(lab.connect(caller, third));
  CHECK((refused.getFailure().getKind() == Kind::REFUSED));
  CHECK(strstr(refused.getFailure().getText().cStr(), "rule 'r'") != nullptr);
  lab.guest.channels[0]->reset();
  (void)closing(lab, id);
  lab.open(caller, third);
  // The numbers that are said last count, for a grant that is older too.
  lab.setLimits({0, 0, /* open */ 2}, {});
  CHECK(strstr(lab.take(lab.connect(caller, first)).getFailure().getText().cStr(), "port") != nullptr);
  lab.setLimits({}, {0, 0, 0, /* calls */ 2});
  TestSocket more[3];
  lab.open(caller, more[0]);
  lab.open(caller, more[1]);
  CHECK((lab.refusedKind(caller) == Kind::REFUSED));
  lab.advance(30 * kj::MINUTES);
  lab.open(caller, more[2]);
  lab.setLimits({0, 0, 0, 0, 0, /* zero: rate */ 1}, {});
  CHECK((lab.refusedKind(caller) == Kind::REFUSED));
  lab.tellAll();
  CHECK(lab.told().rules.at("r").refused == 4);
  CHECK(lab.guest.asked.size() == 6);
}

TEST_CASE("a rate delays, also when it is set for a channel that is open, and the time that was waited is summed") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  TestSocket mine;
  auto id = lab.open(caller, mine);
  auto& channel = *lab.guest.channels[0];
  mine.write("0123456789");
  CHECK(lab.read(channel, 10) == "0123456789");
  lab.setLimits({/* rate */ 10, /* burst */ 10}, {});
  mine.write("0123456789");
  CHECK(lab.read(channel, 10) == "0123456789");
  mine.write("abcde");
  auto late = lab.guest.channels[0]->read();
  lab.turn();
  lab.advance(400 * kj::MILLISECONDS);
  CHECK_FALSE(late.poll(lab.io.waitScope));
  lab.advance(100 * kj::MILLISECONDS);
  CHECK(lab.soon([&]() { return late.poll(lab.io.waitScope); }));
  CHECK(late.wait(lab.io.waitScope).get<BulkChunk>().bytes().size() == 5);
  // Of a piece that stands still, until there is another rate.
  lab.setLimits({0, 0, 0, 0, 0, /* zero: rate */ 1}, {});
  mine.write("x");
  auto still = lab.guest.channels[0]->read();
  lab.turn();
  lab.advance(100 * kj::SECONDS);
  CHECK_FALSE(still.poll(lab.io.waitScope));
  lab.setLimits({}, {});
  CHECK(lab.soon([&]() { return still.poll(lab.io.waitScope); }));
  lab.guest.channels[0]->reset();
  auto& closed = closing(lab, id);
  CHECK(closed.traffic.bytesThere == 26);
  CHECK(closed.traffic.throttled == uint64_t((500 * kj::MILLISECONDS + 100 * kj::SECONDS) / kj::NANOSECONDS));
  CHECK(lab.told().port.traffic.throttled == closed.traffic.throttled);
  CHECK(lab.told().rules.at("r").traffic.throttled == closed.traffic.throttled);
}

TEST_CASE("a caller that does not read holds up its own channel's way back, and nothing else") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  TestSocket slow, other;
  lab.open(caller, slow);
  lab.open(caller, other);
  auto& channel = *lab.guest.channels[0];
  auto much = kj::heapArray<kj::byte>(size_t(8) << 20);
  memset(much.begin(), 'x', much.size());
  auto writing = channel.write(much).eagerlyEvaluate(nullptr);
  lab.turn();
  CHECK_FALSE(writing.poll(lab.io.waitScope));
  slow.write("still");
  CHECK(lab.read(channel, 5) == "still");
  other.write("quick");
  CHECK(lab.read(*lab.guest.channels[1], 5) == "quick");
  lab.write(*lab.guest.channels[1], "answer");
  CHECK(lab.readSoon(other, 6) == "answer");
  CHECK(lab.beat(lab.linked.guest, lab.agent) != 0);
  // It goes on when it reads.
  size_t got = 0;
  CHECK(lab.soon([&]() {
    got += slow.read().size();
    return got == much.size();
  }));
}

// T109
TEST_CASE("a channel ends with the caller's connection, which is how a grant is cut, and takes no other one along") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  auto other = lab.introduce({"http"}, {}, 8);
  TestSocket mine, theirs;
  auto id = lab.open(caller, mine);
  lab.open(other, theirs);
  CHECK(lab.guest.callersReleased == 0);
  caller.rpc = nullptr;
  CHECK((lab.endOf(*lab.guest.channels[0]) == BulkEnd::RESET));
  CHECK(lab.soon([&]() { return mine.isOver(); }));
  CHECK((closing(lab, id).why == "reset"));
  CHECK(lab.soon([&]() { return lab.guest.callersReleased == 1; }));
  theirs.write("on");
  CHECK(lab.read(*lab.guest.channels[1], 2) == "on");
  // One that is given up before the guest has answered leaves nothing behind.
  lab.guest.answer = GuestAnswer::NEVER;
  auto third = lab.introduce({"http"}, {}, 9);
  auto waiting = lab.connect(third, mine);
  third.rpc = nullptr;
  CHECK(lab.soon([&]() { return lab.guest.callersReleased == 2; }));
  CHECK(lab.soon([&]() { return mine.isOver(); }));
  lab.tellAll();
  CHECK(lab.told().port.active == 1);
}

TEST_CASE("what a posternd that has gone has granted reaches no guest: neither without one nor with the next one") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  TestSocket mine, others;
  lab.open(caller, mine);
  lab.posternd = nullptr;
  lab.settle();
  CHECK((lab.refusedKind(caller) == Kind::LAPSED));
  lab.posternd = kj::heap<Posternd>(lab);
  CHECK((lab.refusedKind(caller) == Kind::LAPSED));
  CHECK(lab.guest.asked.size() == 1);
  // A stream that was passed for it stays with nobody here.
  CHECK((lab.take(lab.connect(caller, others)).getFailure().getKind() == Kind::LAPSED));
  CHECK(postern::test::comesTo([&] { return others.isOver(); }, true));
  // The channel that it has lives, and what the next one grants is good.
  mine.write("x");
  CHECK(lab.read(*lab.guest.channels[0], 1) == "x");
  auto next = lab.introduce({"http"}, {}, 8);
  lab.open(next, others);
  CHECK(lab.told().opened.size() == 1);
}

TEST_CASE("a posternd that goes while its caller keeps his stream back has granted nothing: the guest is not asked") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  auto later = kj::newPromiseAndFulfiller<schema::Descriptor::Client>();
  auto request = caller.calls.connectRequest();
  request.setService("http");
  request.setStream(kj::mv(later.promise));
  auto connected = request.send().eagerlyEvaluate(nullptr);
  lab.settle();
  lab.posternd = kj::heap<Posternd>(lab);
  auto pair = newSocketPair(SOCK_STREAM);
  later.fulfiller->fulfill(newDescriptor(kj::mv(pair.second)));
  CHECK((lab.take(kj::mv(connected)).getFailure().getKind() == Kind::LAPSED));
  CHECK(lab.guest.asked.size() == 0);
}

TEST_CASE("a posternd that goes while the guest is being asked has granted nothing: no byte passes") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  auto answer = kj::newPromiseAndFulfiller<void>();
  lab.guest.before = kj::mv(answer.promise);
  TestSocket mine;
  auto connected = lab.connect(caller, mine);
  lab.posternd = kj::heap<Posternd>(lab);
  answer.fulfiller->fulfill();
  CHECK((lab.take(kj::mv(connected)).getFailure().getKind() == Kind::LAPSED));
  lab.tellAll();
  CHECK(lab.told().opened.size() == 0);
  CHECK(lab.told().port.opened == 0);
}

TEST_CASE("cutChannels cuts those channels, in the turn that follows, and no other") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  TestSocket mine, other;
  auto id = lab.open(caller, mine);
  auto otherId = lab.open(caller, other);
  auto cut = [&]() {
    auto request = lab.posternd->control.cutChannelsRequest();
    request.setIds({id});
    lab.take(request.send().ignoreResult());
  };
  cut();
  lab.settle();
  CHECK(mine.isOver());
  CHECK((lab.endOf(*lab.guest.channels[0]) == BulkEnd::RESET));
  CHECK((closing(lab, id).why == "cut"));
  other.write("on");
  CHECK(lab.read(*lab.guest.channels[1], 2) == "on");
  // One that is not, or no longer.
  cut();
  lab.tellAll();
  CHECK(lab.told().closed.count(otherId) == 0);
}

TEST_CASE("a guest that goes away in the middle ends its channels: the caller sees an end, posternd hears why") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  TestSocket mine;
  auto id = lab.open(caller, mine);
  mine.write("hello");
  CHECK(lab.read(*lab.guest.channels[0], 5) == "hello");
  lab.guest.channels.clear();
  lab.kill(lab.linked.guest);
  CHECK(lab.soon([&]() { return mine.isOver(); }));
  auto& closed = closing(lab, id);
  CHECK((closed.why == "link-ended" || closed.why == "reset"));
  CHECK(closed.traffic.bytesThere == 5);
  // The next guest serves the same caller.
  LinkedGuest again;
  lab.linkGuest(again);
  TestSocket next;
  lab.open(caller, next);
  next.write("again");
  CHECK(lab.read(*lab.guest.channels[0], 5) == "again");
}

TEST_CASE("services: the guest's list, with what is no name left out, for any grant that has a service") {
  ChannelLab lab;
  for (auto name : {"http", "ssh", "a.b", "", "-x", "\x1b[31m"}) lab.guest.exports.add(kj::str(name));
  auto caller = lab.introduce({"*"});
  auto listed = lab.take(caller.calls.servicesRequest().send());
  REQUIRE_FALSE(listed.hasFailure());
  REQUIRE(listed.getServices().size() == 2);
  CHECK((listed.getServices()[0] == "http"));
  CHECK((listed.getServices()[1] == "ssh"));
  for (int i = 0; i < 300; ++i) lab.guest.exports.add(kj::str("s", i));
  CHECK(lab.take(caller.calls.servicesRequest().send()).getServices().size() == MAX_LISTED_SERVICES);
  lab.guest.refusesList = true;
  CHECK((lab.take(caller.calls.servicesRequest().send()).getFailure().getKind() == Kind::DENIED));
  auto none = lab.posternd->introduce(lab, 8, {"ping"_kj});
  CHECK((lab.take(none.calls.servicesRequest().send()).getFailure().getKind() == Kind::DENIED));
}

TEST_CASE("what has passed a channel that lives can be asked for, beside what has passed the others") {
  ChannelLab lab;
  auto caller = lab.introduce({"http"});
  TestSocket first, second;
  auto id = lab.open(caller, first);
  auto other = lab.open(caller, second);
  auto& channel = *lab.guest.channels[0];
  lab.write(channel, "from the guest");
  CHECK(lab.readSoon(first, 14) == "from the guest");
  auto answer = lab.take(lab.posternd->control.channelTrafficRequest().send());
  REQUIRE(answer.getChannels().size() == 2);
  for (auto passed : answer.getChannels()) {
    CHECK((passed.getId() == id || passed.getId() == other));
    CHECK(passed.getTraffic().getBytesThere() == 0);
    CHECK(passed.getTraffic().getBytesBack() == (passed.getId() == id ? 14 : 0));
  }
}

}  // namespace
}  // namespace postern::host
