#include "host/session/channels/channel-passage.h"

#include <string.h>

#include "tests/unit/host/limits-fixture.h"

namespace postern::host {
namespace {

using test::LimitsLab;
using test::Numbers;

constexpr auto S = kj::SECONDS;
constexpr auto OUT = RelayWay::OUT;
constexpr auto IN = RelayWay::IN;

struct Lab : public LimitsLab {
  PassedRule rule(kj::StringPtr id) { return {kj::str(id), limits.gateOf(id)}; }
  kj::Own<ChannelPassage> begin(kj::StringPtr id) {
    auto passed = rule(id);
    auto begun = ChannelPassage::begin(limits, passed);
    if (begun.is<kj::String>()) FAIL(begun.get<kj::String>().cStr());
    return kj::mv(begun.get<kj::Own<ChannelPassage>>());
  }
  kj::String refused(kj::StringPtr id) {
    auto passed = rule(id);
    auto begun = ChannelPassage::begin(limits, passed);
    return begun.is<kj::String>() ? kj::mv(begun.get<kj::String>()) : kj::String();
  }
  kj::Promise<void> admit(ChannelPassage& passage, RelayWay way, size_t bytes) {
    KJ_IF_MAYBE (wait, passage.admit(way, bytes)) return kj::mv(*wait);
    return kj::READY_NOW;
  }
};

TEST_CASE("without limits a piece goes at once, and leaves no promise") {
  Lab lab;
  auto channel = lab.begin("r");
  CHECK((channel->admit(OUT, 65'000) == nullptr));
  CHECK((channel->admit(IN, 65'000) == nullptr));
  channel->leave(OUT);
  CHECK((channel->admit(OUT, 65'000) == nullptr));
}

TEST_CASE("no more bytes are under way than `bytes`; what waits goes in the order in which it came") {
  Lab lab;
  lab.rules({{"r", 0, 0, 0, 0, 0, /* bytes */ 100}});
  auto a = lab.begin("r"), b = lab.begin("r"), c = lab.begin("r");
  CHECK((a->admit(OUT, 60) == nullptr));
  CHECK((a->admit(IN, 40) == nullptr));
  auto second = lab.admit(*b, OUT, 50), third = lab.admit(*c, OUT, 10);
  CHECK_FALSE(second.poll(lab.waitScope));
  a->leave(IN);
  // There would be room for the third, which is behind.
  CHECK_FALSE(second.poll(lab.waitScope));
  CHECK_FALSE(third.poll(lab.waitScope));
  a->leave(OUT);
  CHECK(second.poll(lab.waitScope));
  CHECK(third.poll(lab.waitScope));
  auto fourth = lab.admit(*a, OUT, 41);
  CHECK_FALSE(fourth.poll(lab.waitScope));
  c->leave(OUT);
  CHECK(fourth.poll(lab.waitScope));
}

TEST_CASE("a piece that is larger than `bytes` goes alone") {
  Lab lab;
  lab.rules({{"r", 0, 0, 0, 0, 0, 10}});
  auto a = lab.begin("r"), b = lab.begin("r");
  CHECK((a->admit(OUT, 1000) == nullptr));
  auto next = lab.admit(*b, OUT, 1);
  CHECK_FALSE(next.poll(lab.waitScope));
  a->leave(OUT);
  CHECK(next.poll(lab.waitScope));
  auto large = lab.admit(*a, OUT, 1000);
  CHECK_FALSE(large.poll(lab.waitScope));
  b->leave(OUT);
  CHECK(large.poll(lab.waitScope));
}

TEST_CASE(
    "room at the rule's and at the port's gate is taken together, so that nobody holds one and waits for the other") {
  Lab lab;
  lab.rules({{"a", 0, 0, 0, 0, 0, 100}, {"b"}});
  lab.port({"", 0, 0, 0, 0, 0, 100});
  auto a = lab.begin("a"), other = lab.begin("b");
  CHECK((other->admit(OUT, 100) == nullptr));  // the port is full
  auto waitsForPort = lab.admit(*a, OUT, 100);
  CHECK_FALSE(waitsForPort.poll(lab.waitScope));
  auto b = lab.begin("a");
  auto behind = lab.admit(*b, OUT, 100);
  other->leave(OUT);
  CHECK(waitsForPort.poll(lab.waitScope));
  CHECK_FALSE(behind.poll(lab.waitScope));
  a->leave(OUT);
  CHECK(behind.poll(lab.waitScope));
}

TEST_CASE("a channel that goes while its piece waits, or is under way, leaves its room to the others") {
  Lab lab;
  lab.rules({{"r", 0, 0, 0, 0, 0, 100}});
  auto a = lab.begin("r"), b = lab.begin("r"), c = lab.begin("r");
  CHECK((a->admit(OUT, 100) == nullptr));
  kj::Maybe<kj::Promise<void>> gone = lab.admit(*b, OUT, 100);
  auto last = lab.admit(*c, OUT, 1);
  gone = nullptr;
  b = nullptr;
  CHECK_FALSE(last.poll(lab.waitScope));
  a = nullptr;
  CHECK(last.poll(lab.waitScope));
  // One that waits in front of those who would fit.
  auto d = lab.begin("r"), e = lab.begin("r");
  auto tooLarge = lab.admit(*d, OUT, 100);
  auto small = lab.admit(*e, OUT, 5);
  CHECK_FALSE(small.poll(lab.waitScope));
  d->leave(OUT);
  CHECK(small.poll(lab.waitScope));
}

// T105
TEST_CASE("another `bytes` counts for what waits, and a bound of 0 stands still") {
  Lab lab;
  lab.rules({{"r", 0, 0, 0, 0, 0, 100}});
  auto a = lab.begin("r"), b = lab.begin("r");
  CHECK((a->admit(OUT, 100) == nullptr));
  auto waiting = lab.admit(*b, OUT, 100);
  lab.rules({{"r", 0, 0, 0, 0, 0, 200}});
  CHECK(waiting.poll(lab.waitScope));
  a->leave(OUT);
  b->leave(OUT);
  lab.rules({{"r", 0, 0, 0, 0, 0, 0, /* zero */ 32}});
  auto still = lab.admit(*a, OUT, 1);
  CHECK_FALSE(still.poll(lab.waitScope));
  CHECK(strstr(lab.refused("r").cStr(), "limit of 0") != nullptr);
  lab.rules({{"r"}});
  CHECK(still.poll(lab.waitScope));
}

TEST_CASE("a piece waits for room first and then for its turn, and both ways of a channel share the rate") {
  Lab lab;
  lab.rules({{"r", /* rate */ 1000, /* burst */ 100, 0, 0, 0, /* bytes */ 500}});
  auto a = lab.begin("r");
  CHECK((a->admit(OUT, 100) == nullptr));
  auto back = lab.admit(*a, IN, 400);
  CHECK_FALSE(back.poll(lab.waitScope));
  auto b = lab.begin("r");
  auto second = lab.admit(*b, OUT, 100);
  lab.advance(400 * kj::MILLISECONDS);
  CHECK(back.poll(lab.waitScope));
  CHECK_FALSE(second.poll(lab.waitScope));
  a->leave(IN);
  // Only now does it take its turn; the burst had not come in again.
  CHECK_FALSE(second.poll(lab.waitScope));
  lab.advance(100 * kj::MILLISECONDS);
  CHECK(second.poll(lab.waitScope));
}

// T104
TEST_CASE("a channel has its places as long as it lives, and takes none where it is refused") {
  Lab lab;
  lab.rules({{"one", 0, 0, 0, 1}, {"other"}});
  lab.port({"", 0, 0, 0, 2});
  auto first = lab.begin("one");
  CHECK(strstr(lab.refused("one").cStr(), "rule 'one'") != nullptr);
  auto second = lab.begin("other");
  CHECK(strstr(lab.refused("other").cStr(), "port") != nullptr);
  first = nullptr;
  CHECK(lab.refused("one").size() == 0);
  CHECK(lab.refused("other").size() == 0);
}

TEST_CASE("ten seconds of many channels with many pieces keep the rate and the room") {
  Lab lab;
  constexpr uint64_t RATE = 20'000'000, BYTES = 500'000;
  lab.rules({{"r", RATE, 0, 0, 0, 0, BYTES}});
  constexpr size_t CHANNELS = 50;
  kj::Vector<kj::Own<ChannelPassage>> channels;
  kj::Vector<kj::Maybe<kj::Promise<void>>> waiting;
  for (size_t i = 0; i < CHANNELS; ++i) {
    channels.add(lab.begin("r"));
    waiting.add(nullptr);
  }
  uint64_t passed[CHANNELS] = {};
  uint64_t total = 0;
  constexpr size_t PIECE = 60'000;
  for (auto end = lab.timer.now() + 10 * S; lab.timer.now() < end; lab.advance(1 * kj::MILLISECONDS)) {
    for (size_t i = 0; i < CHANNELS; ++i) {
      KJ_IF_MAYBE (wait, waiting[i]) {
        if (!wait->poll(lab.waitScope)) continue;
        channels[i]->leave(OUT);
        passed[i] += PIECE;
        total += PIECE;
      }
      waiting[i] = lab.admit(*channels[i], OUT, PIECE);
    }
  }
  CHECK(static_cast<double>(total) <= 1.05 * 10 * RATE);
  CHECK(static_cast<double>(total) >= 0.95 * 10 * RATE);
  // And fairly.
  for (auto one : passed) {
    CHECK(static_cast<double>(one) >= 0.8 * 10 * RATE / CHANNELS);
    CHECK(static_cast<double>(one) <= 1.2 * 10 * RATE / CHANNELS);
  }
}

}  // namespace
}  // namespace postern::host
