#include "guest-agent/log/damped-log.h"

#include <doctest/doctest.h>
#include <kj/async.h>
#include <kj/vector.h>

using namespace postern::guest;

namespace {

struct Lab {
  kj::EventLoop loop;
  kj::WaitScope scope{loop};
  kj::TimerImpl timer{kj::origin<kj::TimePoint>()};
  kj::Vector<kj::String> lines;
  DampedLog log{timer, [this](kj::StringPtr text) { lines.add(kj::str(text)); }};

  void pass(kj::Duration time) {
    scope.poll();
    timer.advanceTo(timer.now() + time);
    scope.poll();
  }
};

}  // namespace

TEST_CASE("of a flood about one thing the first is a line at once, and a minute's rest is one line with a count") {
  Lab lab;
  for (int i = 0; i < 10000; ++i) lab.log.tell("db1", kj::str("denied ", i));
  CHECK((kj::strArray(lab.lines, "|") == "denied 0"));
  lab.pass(30 * kj::SECONDS);
  CHECK(lab.lines.size() == 1);
  lab.pass(31 * kj::SECONDS);
  CHECK((kj::strArray(lab.lines, "|") == "denied 0|denied 9999 (9999 times within a minute)"));
  lab.pass(61 * kj::SECONDS);
  lab.pass(61 * kj::SECONDS);
  CHECK(lab.lines.size() == 2);
  lab.log.tell("db1", "denied again");
  CHECK((lab.lines.back() == "denied again"));
}

TEST_CASE("what goes on for minutes is one line a minute") {
  Lab lab;
  for (int second = 0; second < 300; ++second) {
    lab.log.tell("db1", "denied");
    lab.pass(1 * kj::SECONDS);
  }
  CHECK(lab.lines.size() == 6);
}

TEST_CASE("things do not damp each other, and above so many they are one") {
  Lab lab;
  lab.log.tell("a", "a");
  lab.log.tell("b", "b");
  lab.log.tell("a", "a");
  CHECK(lab.lines.size() == 2);
  for (size_t i = 0; i < 5000; ++i) lab.log.tell(kj::str("thing ", i), "x");
  CHECK(lab.lines.size() == MAX_DAMPED_THINGS + 1);
}
