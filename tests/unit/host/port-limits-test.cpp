#include "host/session/port-limits.h"

#include <string.h>

#include <array>

#include "tests/unit/host/limits-fixture.h"

namespace postern::host {
namespace {

using test::LimitsLab;
using test::Numbers;

constexpr auto S = kj::SECONDS;
constexpr auto MS = kj::MILLISECONDS;

struct Lab : public LimitsLab {
  kj::Promise<void> pace(LimitGate& gate, uint64_t bytes) {
    LimitGate* gates[] = {&gate};
    KJ_IF_MAYBE (wait, limits.pace(gates, bytes)) return kj::mv(*wait);
    return kj::READY_NOW;
  }
  kj::Own<LimitGate> gate(const Numbers& numbers) {
    capnp::MallocMessageBuilder message;
    numbers.write(message.initRoot<schema::Limit>());
    return limits.setRule("r", message.getRoot<schema::Limit>());
  }
  void setLimits(std::initializer_list<Numbers> all, const Numbers& port = {}) {
    capnp::MallocMessageBuilder message;
    auto params = message.initRoot<schema::SessionControl::SetLimitsParams>();
    port.write(params.initPort());
    auto list = params.initRules(static_cast<unsigned>(all.size()));
    unsigned i = 0;
    for (auto& numbers : all) numbers.write(list[i++]);
    limits.set(params.asReader().getPort(), params.asReader().getRules());
  }
};

// Senders that always have another piece, on a loop that turns every so often: how many bytes pass.
uint64_t passedIn(Lab& lab, LimitGate& gate, kj::Duration time, kj::Duration turn, size_t piece) {
  constexpr size_t SENDERS = 3;
  std::array<kj::Maybe<kj::Promise<void>>, SENDERS> waiting;
  uint64_t passed = 0;
  for (auto end = lab.timer.now() + time; lab.timer.now() < end; lab.advance(turn)) {
    for (auto& sender : waiting) {
      for (;;) {
        KJ_IF_MAYBE (wait, sender) {
          if (!wait->poll(lab.waitScope)) break;
          passed += piece;
        }
        sender = lab.pace(gate, piece);
      }
    }
  }
  return passed;
}

TEST_CASE("a rate is kept to a twentieth over ten seconds, whatever the pieces and however late the loop") {
  for (uint64_t rate : {uint64_t(4) << 20, uint64_t(50) << 20, uint64_t(1) << 30}) {
    for (uint64_t burst : {uint64_t(0), uint64_t(4) << 10}) {
      for (auto turn : {1 * MS, 7 * MS}) {
        for (size_t piece : {size_t(1) << 14, (size_t(1) << 16) - 64}) {
          Lab lab;
          auto gate = lab.gate({"", rate, burst});
          auto passed = static_cast<double>(passedIn(lab, *gate, 10 * S, turn, piece));
          auto wanted = static_cast<double>(rate) * 10;
          CAPTURE(rate);
          CAPTURE(burst);
          CHECK(passed <= wanted * 1.05);
          CHECK(passed >= wanted * 0.95);
        }
      }
    }
  }
}

TEST_CASE("a low rate that says no burst is not exceeded by a twentieth in ten seconds either") {
  for (uint64_t rate : {uint64_t(1000), uint64_t(20'000), uint64_t(200'000)}) {
    Lab lab;
    auto gate = lab.gate({"", rate});
    CHECK(static_cast<double>(passedIn(lab, *gate, 10 * S, 1 * MS, 500)) <= static_cast<double>(rate) * 10.5);
  }
}

// T105
TEST_CASE("other numbers count at once, for what waits too, and a rule that is not named keeps its own") {
  Lab lab;
  lab.rules({{"kept", 1000, 1}, {"r", 10, 1}});
  auto kept = lab.limits.gateOf("kept"), changed = lab.limits.gateOf("r");
  auto behindKept = lab.pace(*kept, 60'000), behindChanged = lab.pace(*changed, 60'000);
  CHECK_FALSE(behindKept.poll(lab.waitScope));
  CHECK_FALSE(behindChanged.poll(lab.waitScope));
  lab.setLimits({{"r", 60'000, 1}, {"not known", 1}});
  CHECK_FALSE(behindChanged.poll(lab.waitScope));
  lab.advance(1 * S);
  CHECK(behindChanged.poll(lab.waitScope));
  CHECK_FALSE(behindKept.poll(lab.waitScope));
  lab.setLimits({{"kept"}});
  CHECK(behindKept.poll(lab.waitScope));
  // Slower: what waits, waits longer.
  lab.setLimits({{"r", 1000, 1}});
  auto slow = lab.pace(*changed, 10'000);
  lab.setLimits({{"r", 100, 1}});
  lab.advance(99 * S);
  CHECK_FALSE(slow.poll(lab.waitScope));
  lab.advance(1 * S);
  CHECK(slow.poll(lab.waitScope));
  // A rate of 0: it stands still until there is another.
  lab.setLimits({{"r", 0, 0, 0, 0, 0, 0, /* zero */ 1}});
  auto still = lab.pace(*changed, 1);
  lab.advance(10'000 * S);
  CHECK_FALSE(still.poll(lab.waitScope));
  lab.setLimits({{"r"}});
  CHECK(still.poll(lab.waitScope));
}

TEST_CASE("what waits at several gates goes when the last of them lets it") {
  Lab lab;
  lab.rules({{"a", 1000, 1}, {"b", 100, 1}});
  auto a = lab.limits.gateOf("a"), b = lab.limits.gateOf("b");
  LimitGate* both[] = {a.get(), b.get()};
  auto waiting = lab.limits.pace(both, 1000);
  auto& wait = KJ_REQUIRE_NONNULL(waiting);
  lab.advance(9 * S);
  CHECK_FALSE(wait.poll(lab.waitScope));
  lab.advance(1 * S);
  CHECK(wait.poll(lab.waitScope));
}

// T104
TEST_CASE("open and calls refuse, and so does every bound of 0 but a burst's") {
  Lab lab;
  auto now = [&]() { return lab.timer.now(); };
  auto gate = lab.gate({"", 0, 0, 0, 2});
  auto first = kj::heap<LimitPlace>(kj::addRef(*gate), now());
  CHECK((gate->refusal(now()) == nullptr));
  auto second = kj::heap<LimitPlace>(kj::addRef(*gate), now());
  CHECK((KJ_REQUIRE_NONNULL(gate->refusal(now())) == LimitBound::OPEN));
  first = nullptr;
  CHECK((gate->refusal(now()) == nullptr));
  second = nullptr;

  gate = lab.gate({"", 0, 0, 0, 0, 3});
  for (int i = 0; i < 3; ++i) {
    CHECK((gate->refusal(now()) == nullptr));
    LimitPlace place(kj::addRef(*gate), now());
  }
  CHECK((KJ_REQUIRE_NONNULL(gate->refusal(now())) == LimitBound::CALLS));
  lab.advance(19 * kj::MINUTES);
  CHECK((gate->refusal(now()) != nullptr));
  lab.advance(1 * kj::MINUTES);
  CHECK((gate->refusal(now()) == nullptr));

  for (unsigned zero : {1, 4, 8, 16, 32}) {
    gate = lab.gate({"", 0, 0, 0, 0, 0, 0, static_cast<uint16_t>(zero)});
    CHECK((KJ_REQUIRE_NONNULL(gate->refusal(now())) == LimitBound::ZERO));
  }
  gate = lab.gate({"", 1000, 0, 0, 0, 0, 0, /* burst */ 2});
  CHECK((gate->refusal(now()) == nullptr));
  CHECK_FALSE(lab.pace(*gate, 100).poll(lab.waitScope));
}

TEST_CASE("a refusal names whose bound it is, and which") {
  Lab lab;
  auto text = [&](const Numbers& numbers) {
    auto gate = lab.gate(numbers);
    auto bound = KJ_REQUIRE_NONNULL(gate->refusal(lab.timer.now()));
    return describeRefusal(bound, *gate, "rule 'r'", "channels");
  };
  auto gate = lab.gate({"", 0, 0, 0, 1});
  LimitPlace place(kj::mv(gate), lab.timer.now());
  CHECK((text({"", 0, 0, 0, 1}) ==
         "rule 'r' has room for 1 channels at a time, and they are under way; try again when one is over"));
  CHECK((text({"", 0, 0, 0, 0, 0, 0, 8}) == "rule 'r' has a limit of 0: nothing passes it"));
}

TEST_CASE("a grant that does not speak of the port, as one for pings, leaves its limits as they are") {
  Lab lab;
  lab.port({"", 1000, 1});
  capnp::MallocMessageBuilder message;
  auto grant = message.initRoot<schema::Grant>();
  lab.limits.learn(grant.asReader());
  CHECK_FALSE(lab.pace(*lab.limits.port(), 1000).poll(lab.waitScope));
  grant.initPort();
  lab.limits.learn(grant.asReader());
  CHECK(lab.pace(*lab.limits.port(), 1000).poll(lab.waitScope));
}

TEST_CASE("a rule that a new grant knows without a limit has none any more") {
  Lab lab;
  lab.rules({{"www", 1, 1}});
  auto gate = lab.limits.gateOf("www");
  CHECK_FALSE(lab.pace(*gate, 1000).poll(lab.waitScope));
  capnp::MallocMessageBuilder message;
  auto grant = message.initRoot<schema::Grant>();
  grant.initFiles(1)[0].initScope().initRules(1)[0].setId("www");
  lab.limits.learn(grant.asReader());
  CHECK(lab.pace(*gate, 1000).poll(lab.waitScope));
  // And the same of a service.
  lab.rules({{"www", 1, 1}});
  grant.initFiles(0);
  grant.initServices(1)[0].setRule("www");
  lab.granted = lab.limits.learn(grant.asReader());
  CHECK(lab.pace(*gate, 1000).poll(lab.waitScope));
}

TEST_CASE("rules that come and go with policies do not fill the memory, and those in use stay") {
  Lab lab;
  lab.rules({{"kept", 1000, 1, 0, 1}});
  LimitPlace place(lab.limits.gateOf("kept"), lab.timer.now());
  for (int i = 0; i < 10'000; ++i) {
    auto name = kj::str("rule", i);
    lab.rules({{name, 1, 1}});
    auto gate = lab.limits.gateOf(name);
    CHECK(lab.pace(*gate, 1).poll(lab.waitScope));
    lab.advance(1 * S);
  }
  CHECK((lab.limits.gateOf("kept")->refusal(lab.timer.now()) != nullptr));
  CHECK(lab.limits.rememberedRules() <= MAX_IDLE_RULES + 1);
}

}  // namespace
}  // namespace postern::host
