#include "host/daemon/repeats.h"

#include <doctest/doctest.h>

namespace postern::host {
namespace {

struct Lab {
  Repeats repeats;
  kj::TimePoint now = kj::origin<kj::TimePoint>() + 1 * kj::HOURS;
  kj::Vector<kj::String> recorded;

  bool ask(kj::StringPtr who, kj::StringPtr call) { return repeats.isFirst(now, who, "web1", call, "", "denied"); }
  void flush() {
    repeats.flush(now, [this](const DecisionKind& kind, uint64_t times) {
      recorded.add(kj::str(kind.who, ' ', kind.vm, ' ', kind.call, ' ', kind.outcome, ' ', times));
    });
  }
};

// T57
TEST_CASE("what is asked again and again is recorded once, and its number when the window is over") {
  Lab lab;
  CHECK(lab.ask("user:eve", "ping"));
  for (int i = 0; i < 999; ++i) CHECK_FALSE(lab.ask("user:eve", "ping"));
  CHECK(lab.ask("user:alice", "ping"));  // somebody else
  CHECK(lab.ask("user:eve", "power.shutdown"));
  lab.flush();
  CHECK(lab.recorded.empty());
  lab.now += REPEAT_WINDOW;
  lab.flush();
  REQUIRE(lab.recorded.size() == 1);
  CHECK((lab.recorded[0] == "user:eve web1 ping denied 999"));
  CHECK(lab.ask("user:eve", "ping"));
  lab.now += REPEAT_WINDOW;
  lab.flush();
  CHECK(lab.recorded.size() == 1);
}

TEST_CASE("what comes between the window's end and the flush is recorded, and the count is not lost") {
  Lab lab;
  CHECK(lab.ask("user:eve", "ping"));
  CHECK_FALSE(lab.ask("user:eve", "ping"));
  lab.now += REPEAT_WINDOW;
  CHECK(lab.ask("user:eve", "ping"));
  lab.flush();
  REQUIRE(lab.recorded.size() == 1);
  CHECK((lab.recorded[0] == "user:eve web1 ping denied 1"));
}

TEST_CASE("more kinds than are remembered are recorded, each") {
  Lab lab;
  for (size_t i = 0; i < MAX_REPEAT_KINDS + 100; ++i) CHECK(lab.ask(kj::str("uid:", i), "ping"));
  CHECK(lab.ask(kj::str("uid:", MAX_REPEAT_KINDS + 50), "ping"));
  lab.now += REPEAT_WINDOW;
  lab.flush();
  CHECK(lab.ask("uid:0", "ping"));
  CHECK_FALSE(lab.ask("uid:0", "ping"));
}

}  // namespace
}  // namespace postern::host
