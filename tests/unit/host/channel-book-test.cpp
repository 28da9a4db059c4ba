// What posternd is told of channels, and what the book holds, without channels of a link.

#include "host/session/channels/channel-book.h"

#include <string.h>

#include "tests/unit/host/process-fixture.h"

namespace postern::host {
namespace {

using test::ToldOfChannels;

class Lab {
 public:
  kj::AsyncIoContext io = kj::setupAsyncIo();
  kj::TimerImpl timer{kj::origin<kj::TimePoint>() + 1000 * kj::SECONDS};
  postern::test::TestRandom random;
  PortLimits limits{timer};
  ChannelBook book{{io.unixEventPort, timer, random, kj::systemPreciseCalendarClock()}, limits};
  kj::Vector<kj::String> seen;
  ToldOfChannels told;

  void attach(bool answers = true) {
    book.posternd().attach(kj::heap<test::Observed>(seen, answers, &told));
    settle();
  }
  void settle() {
    for (int i = 0; i < 20; ++i) io.waitScope.poll();
  }
  void advance(kj::Duration by) {
    timer.advanceTo(timer.now() + by);
    settle();
  }
  KeptChannel channel(uint64_t id) {
    KeptChannel kept;
    kept.id = id;
    kept.to = kj::str("db1");
    kept.service = kj::str("postgres");
    kept.rule = kj::str("r");
    return kept;
  }
  kj::Own<ChannelBook::Place> place(kj::StringPtr rule = ""_kj) {
    kj::Maybe<PassedRule> passed;
    if (rule.size() > 0) passed = PassedRule{kj::str(rule), limits.gateOf(rule)};
    auto begun = book.begin(passed.map([](const PassedRule& r) -> const PassedRule& { return r; }));
    KJ_REQUIRE(begun.is<kj::Own<ChannelBook::Place>>());
    return kj::mv(begun.get<kj::Own<ChannelBook::Place>>());
  }
  bool isFull() {
    auto begun = book.begin(nullptr);
    return begun.is<kj::String>();
  }
  size_t listed() {
    capnp::MallocMessageBuilder message;
    auto results = message.initRoot<schema::SessionControl::AttachResults>();
    book.list(results);
    return results.getChannels().size();
  }
};

// T104
TEST_CASE("a VM has so many channels, those included of whose end nobody has heard") {
  Lab lab;
  kj::Vector<kj::Own<ChannelBook::Place>> places;
  while (places.size() < MAX_VM_CHANNELS) places.add(lab.place());
  CHECK(lab.isFull());
  places.removeLast();
  CHECK_FALSE(lab.isFull());
  places.clear();
  for (uint64_t id = 1; id <= MAX_VM_CHANNELS; ++id) lab.book.neverOpened(lab.channel(id), "reset");
  CHECK(lab.isFull());
  CHECK(lab.listed() == MAX_VM_CHANNELS);
  lab.attach();
  CHECK(lab.isFull());
  lab.advance(LIST_PAUSE);
  for (int i = 0; i < 200; ++i) lab.settle();
  CHECK(lab.told.closed.size() == MAX_VM_CHANNELS);
  CHECK_FALSE(lab.isFull());
  CHECK(lab.listed() == 0);
}

TEST_CASE("ids are random, not 0, and nobody's") {
  Lab lab;
  kj::HashSet<uint64_t> ids;
  for (int i = 0; i < 1000; ++i) {
    auto id = lab.book.newId();
    CHECK(id != 0);
    ids.insert(id);  // fails if there was one
  }
}

TEST_CASE("counters come when they have changed, at most five times a second, and before an end") {
  Lab lab;
  lab.attach();
  auto before = lab.told.counters;
  for (int i = 0; i < 100; ++i) {
    lab.book.refused("r");
    lab.advance(10 * kj::MILLISECONDS);
  }
  CHECK(lab.told.counters - before >= 4);
  CHECK(lab.told.counters - before <= 6);
  lab.advance(1 * kj::SECONDS);
  CHECK(lab.told.port.refused == 100);
  CHECK(lab.told.rules.at("r").refused == 100);
  before = lab.told.counters;
  lab.advance(60 * kj::SECONDS);
  CHECK(lab.told.counters == before);
  // Before an end at once, if there were none for a moment; ends that come one after the other share theirs.
  lab.book.refused("r");
  lab.book.neverOpened(lab.channel(1), "reset");
  lab.settle();
  REQUIRE(lab.told.closed.count(1) == 1);
  CHECK(lab.told.closed.at(1).countersBefore == before + 1);
  for (uint64_t id = 2; id < 50; ++id) {
    lab.book.refused("r");
    lab.book.neverOpened(lab.channel(id), "reset");
    lab.settle();
  }
  CHECK(lab.told.closed.size() == 1);
  lab.advance(ENDS_PERIOD);
  CHECK(lab.told.closed.size() == 49);
  CHECK(lab.told.counters == before + 2);
  CHECK(lab.told.port.refused == 149);
}

TEST_CASE(
    "a posternd that does not answer has so many calls before it; what comes then waits, or is counted together") {
  Lab lab;
  lab.attach(/* answers */ false);
  for (uint64_t id = 1; id <= 500; ++id) lab.book.neverOpened(lab.channel(id), "reset");
  for (int i = 0; i < 1000; ++i) {
    lab.book.posternd().refused(7, "http", "denied by the guest");
    lab.book.posternd().refused(uint64_t(1000 + i), "http", "failed");
    lab.book.refused("");
  }
  lab.advance(10 * kj::SECONDS);
  CHECK(lab.told.closed.size() == MAX_UNHEARD);
  CHECK(lab.told.refused.size() == 0);
  CHECK(lab.told.counters <= 2);
  CHECK(lab.book.posternd().untoldEnds() == 500);
  // The next one is told all of the ends, and nothing of refusals that are long over.
  Lab* same = &lab;
  same->told = ToldOfChannels();
  lab.attach();
  CHECK(lab.told.closed.empty());
  lab.advance(LIST_PAUSE);
  for (int i = 0; i < 100; ++i) lab.settle();
  CHECK(lab.told.closed.size() == 500);
  CHECK(lab.told.refused.size() == 0);
  CHECK(lab.told.port.refused == 1000);
  for (int i = 0; i < 10; ++i) lab.book.posternd().refused(7, "http", "denied by the guest");
  lab.settle();
  uint64_t sum = 0;
  for (auto& line : lab.told.refused) sum += uint64_t(atoi(strrchr(line.cStr(), 'x') + 1));
  CHECK(sum == 10);
}

TEST_CASE("of rules the latest are told, so many of them, and one that is in use stays") {
  Lab lab;
  lab.attach();
  for (int i = 0; i < 1000; ++i) lab.book.refused(kj::str("rule", i));
  lab.advance(1 * kj::SECONDS);
  CHECK(lab.told.rules.size() == MAX_TOLD_RULES);
  CHECK(lab.told.rules.count("rule999") == 1);
  CHECK(lab.told.port.refused == 1000);
}

TEST_CASE("attach() lists no more than a message has room for") {
  Lab lab;
  capnp::MallocMessageBuilder message;
  auto user = message.initRoot<postern::schema::Caller>().initUser();
  auto groups = user.initGroups(64);
  for (unsigned i = 0; i < 64; ++i) groups.set(i, kj::str(kj::repeat('g', 100)));
  auto caller = kj::refcounted<ChannelCaller>(message.getRoot<postern::schema::Caller>());
  for (uint64_t id = 1; id <= MAX_VM_CHANNELS; ++id) {
    auto kept = lab.channel(id);
    kept.caller = kj::addRef(*caller);
    lab.book.neverOpened(kj::mv(kept), "reset");
  }
  capnp::MallocMessageBuilder answer;
  auto results = answer.initRoot<schema::SessionControl::AttachResults>();
  lab.book.list(results);
  CHECK(results.getChannels().size() > 100);
  CHECK(results.getChannels().size() < MAX_VM_CHANNELS);
  CHECK(answer.sizeInWords() < SESSION_MESSAGE_WORDS);
}

}  // namespace
}  // namespace postern::host
