// Channels of other VMs that come to a service of this VM's guest.

#include "host/session/channels/served-channel.h"

#include <vector>

#include "tests/unit/host/channel-fixture.h"

namespace postern::host {
namespace {

using test::ChannelLab;
using test::LimitOf;
using test::ServingGuest;
using test::TestSocket;
using Outcome = schema::ServeOutcome;

TEST_CASE("another VM's channel reaches the guest's service, for that VM, and is counted for this one's port") {
  ChannelLab lab;
  TestSocket hop;
  REQUIRE((lab.take(lab.serve(hop, 99)) == Outcome::REACHED));
  REQUIRE(lab.guest.asked.size() == 1);
  CHECK((lab.guest.asked[0] == "db by vm:web9"));
  auto& channel = *lab.guest.channels[0];
  hop.write(kj::StringPtr("\0select", 7));
  CHECK(lab.read(channel, 6) == "select");
  lab.write(channel, "rows");
  CHECK(lab.readSoon(hop, 5) == std::string("\0rows", 5));
  CHECK(lab.soon([&]() { return lab.guest.callersReleased == 1; }));  // an open channel needs its caller no more
  hop.write("\1");
  CHECK((lab.endOf(channel) == BulkEnd::FINISHED));
  channel.finish();
  CHECK(lab.readSoon(hop, 1) == "\1");
  REQUIRE(lab.soon([&]() {
    lab.tellAll();
    return lab.told().closed.count(99) == 1;
  }));
  auto& closed = lab.told().closed.at(99);
  CHECK((closed.why == "finished"));
  CHECK(closed.traffic.bytesThere == 6);
  CHECK(closed.traffic.bytesBack == 4);
  CHECK(lab.told().port.traffic.bytesThere == 4);
  CHECK(lab.told().port.traffic.bytesBack == 6);
  CHECK(lab.told().opened.empty());
  CHECK(lab.told().rules.empty());  // the other session's
}

TEST_CASE("each way in which it is not reached is told apart, to posternd alone") {
  ChannelLab lab;
  struct {
    ServingGuest::Answer answer;
    Outcome outcome;
  } cases[] = {{ServingGuest::Answer::DENIED, Outcome::DENIED},
               {ServingGuest::Answer::NOT_EXPORTED, Outcome::NOT_EXPORTED},
               {ServingGuest::Answer::NOT_REACHED, Outcome::NOT_REACHED},
               {ServingGuest::Answer::FAILS, Outcome::NOT_REACHED}};
  for (auto& expected : cases) {
    lab.guest.answer = expected.answer;
    TestSocket hop;
    CHECK((lab.take(lab.serve(hop)) == expected.outcome));
    CHECK(lab.readSoon(hop, 1) == "\2");
  }
  lab.guest.answer = ServingGuest::Answer::NEVER;
  TestSocket hop;
  auto waiting = lab.serve(hop);
  lab.advance(SERVED_DEADLINE - 1 * kj::SECONDS);
  CHECK_FALSE(waiting.poll(lab.io.waitScope));
  lab.advance(1 * kj::SECONDS);
  CHECK((lab.take(kj::mv(waiting)) == Outcome::NOT_REACHED));
  auto cut = lab.serve(hop);
  lab.kill(lab.linked.guest);
  CHECK((lab.take(kj::mv(cut)) == Outcome::NOT_CONNECTED));
  CHECK((lab.take(lab.serve(hop)) == Outcome::NOT_CONNECTED));
  lab.tellAll();
  CHECK(lab.told().port.refused == 7);
  CHECK(lab.told().port.opened == 0);
  CHECK(lab.told().closed.empty());
}

// T104
TEST_CASE("this VM's port limits what comes to it, too") {
  ChannelLab lab;
  lab.setLimits({0, 0, /* open */ 1}, {});
  TestSocket first, second;
  REQUIRE((lab.take(lab.serve(first, 1)) == Outcome::REACHED));
  CHECK((lab.take(lab.serve(second, 2)) == Outcome::REFUSED));
  CHECK(lab.guest.asked.size() == 1);
  // A program of the host's channels count with them.
  auto caller = lab.introduce({"http"});
  CHECK((lab.refusedKind(caller) == schema::Failure::Kind::REFUSED));
  first.fd = nullptr;
  CHECK((lab.endOf(*lab.guest.channels[0]) == BulkEnd::RESET));
  lab.settle();
  CHECK((lab.take(lab.serve(second, 2)) == Outcome::REACHED));
}

TEST_CASE("an id that another channel has is refused, and the other one stays") {
  ChannelLab lab;
  TestSocket first, second, third;
  REQUIRE((lab.take(lab.serve(first, 5)) == Outcome::REACHED));
  CHECK((lab.take(lab.serve(second, 5)) == Outcome::REFUSED));
  // Also of two that come at once.
  auto a = lab.serve(second, 6);
  auto b = lab.serve(third, 6);
  auto reached = int(lab.take(kj::mv(a)) == Outcome::REACHED) + int(lab.take(kj::mv(b)) == Outcome::REACHED);
  CHECK(reached == 1);
  first.write(kj::StringPtr("\0on", 3));
  CHECK(lab.read(*lab.guest.channels[0], 2) == "on");
}

TEST_CASE("what is no socket of a channel is an error of posternd's, and harms nobody") {
  ChannelLab lab;
  TestSocket none;
  auto wrong = lab.serve(none, 1, SOCK_DGRAM).then([](auto) { return false; }, [](kj::Exception&&) { return true; });
  CHECK(lab.take(kj::mv(wrong)));
  CHECK(lab.guest.asked.empty());
  TestSocket hop;
  CHECK((lab.take(lab.serve(hop, 1)) == Outcome::REACHED));
}

TEST_CASE("a session at the other end that is gone, or hostile, costs that channel") {
  ChannelLab lab;
  TestSocket gone, hostile, fine;
  REQUIRE((lab.take(lab.serve(gone, 1)) == Outcome::REACHED));
  REQUIRE((lab.take(lab.serve(hostile, 2)) == Outcome::REACHED));
  REQUIRE((lab.take(lab.serve(fine, 3)) == Outcome::REACHED));
  gone.fd = nullptr;
  CHECK((lab.endOf(*lab.guest.channels[0]) == BulkEnd::RESET));
  hostile.write("\7what is this");
  CHECK((lab.endOf(*lab.guest.channels[1]) == BulkEnd::RESET));
  fine.write(kj::StringPtr("\0on", 3));
  CHECK(lab.read(*lab.guest.channels[2], 2) == "on");
  CHECK(lab.soon([&]() {
    lab.tellAll();
    return lab.told().closed.size() == 2;
  }));
  CHECK(lab.told().port.active == 1);
}

TEST_CASE("a posternd that gives up a question takes it along, and the next one knows those that are open") {
  ChannelLab lab;
  TestSocket waiting, open;
  REQUIRE((lab.take(lab.serve(open, 41)) == Outcome::REACHED));
  lab.guest.answer = ServingGuest::Answer::NEVER;
  auto asked = lab.serve(waiting, 42);
  REQUIRE(lab.soon([&]() { return lab.guest.asked.size() == 2; }));
  asked = nullptr;
  CHECK(lab.soon([&]() { return lab.guest.callersReleased == 1; }));
  CHECK(lab.readSoon(waiting, 1) == "\2");
  lab.posternd = nullptr;
  lab.settle();
  lab.posternd = kj::heap<test::Posternd>(lab);
  auto channels = KJ_REQUIRE_NONNULL(lab.posternd->attached).getChannels();
  REQUIRE(channels.size() == 1);
  CHECK(channels[0].getId() == 41);
  CHECK_FALSE(channels[0].getAsked());
  CHECK((channels[0].getCaller().getVm() == "web9"));
  CHECK((channels[0].getService() == "db"));
  open.write(kj::StringPtr("\0on", 3));
  CHECK(lab.read(*lab.guest.channels[0], 2) == "on");
}

TEST_CASE(
    "a thousand channels open at once carry their bytes, and ten thousand that come and go leave nothing behind") {
  ChannelLab lab;
  test::MoreDescriptors descriptors;
  if (!descriptors.areEnough(3000)) return;
  {
    std::vector<TestSocket> hops(1000);
    for (size_t i = 0; i < hops.size(); ++i) {
      REQUIRE((lab.take(lab.serve(hops[i], i + 1)) == Outcome::REACHED));
    }
    for (size_t i = 0; i < hops.size(); ++i) hops[i].write(kj::StringPtr("\0on", 3));
    for (size_t i = 0; i < hops.size(); ++i) CHECK(lab.read(*lab.guest.channels[i], 2) == "on");
    lab.tellAll();
    CHECK(lab.told().port.active == 1000);
  }
  lab.guest.channels.clear();
  auto active = [&]() {
    lab.tellAll();
    return lab.told().port.active;
  };
  CHECK(lab.soon([&]() { return active() == 0; }));
  for (size_t i = 0; i < 10'000; ++i) {
    TestSocket hop;
    REQUIRE((lab.take(lab.serve(hop, i + 2000)) == Outcome::REACHED));
    if (i % 64 == 0) lab.tellAll();
    lab.guest.channels.clear();
  }
  CHECK(lab.soon([&]() { return active() == 0 && lab.told().closed.size() == 11'000; }));
  CHECK(lab.told().port.opened == 11'000);
  CHECK(lab.told().port.refused == 0);
}

}  // namespace
}  // namespace postern::host
