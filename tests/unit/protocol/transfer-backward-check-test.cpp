#include "protocol/transfer/backward-check.h"

#include "tests/unit/protocol/transfer-fixture.h"

namespace postern::transfer {
namespace {

class Judge {
 public:
  BackwardCheck check;

  template <typename T>
  Judge& operator()(T message) {
    REQUIRE(rule.empty());
    rule = ruleOf(check.check(backward(kj::mv(message))));
    return *this;
  }
  Judge& sent(bool wantsBase = false) {
    check.sentEntry(wantsBase);
    return *this;
  }
  Judge& sentDone() {
    check.sentDone();
    return *this;
  }
  bool isFine() const { return rule.empty(); }

  std::string rule;
};

Judge begun() {
  Judge judge;
  return kj::mv(judge(Ready{false}));
}
Refused refused() {
  return {someProblem()};
}
DestinationFailed failed(uint64_t entry) {
  return {entry, kj::str("a"), someProblem()};
}
Hashes hashes(size_t count) {
  return {bytesOf(count * HASH_BYTES)};
}

TEST_CASE("a whole backward direction in order is in order") {
  Judge judge;
  judge(Ready{true}).sent(true)(Base{2 * CHUNK_BYTES + 1})(hashes(2))(hashes(1)).sent()(failed(1))(Progress{1, 5});
  judge.sentDone()(Progress{2, 9})(Summary{1, 0, 5, 3, 1, 1});
  CHECK(judge.isFine());
  CHECK(judge.check.isOver());
}

// T68
TEST_CASE("ready or refused comes first and once, and nothing follows the end") {
  CHECK(Judge()(Progress{0, 0}).rule == "ready or refused comes first");
  CHECK(Judge()(Base{0}).rule == "ready or refused comes first");
  CHECK(Judge()(Summary()).rule == "ready or refused comes first");
  CHECK(begun()(Ready{true}).rule == "ready or refused comes once");
  CHECK(begun()(refused()).rule == "ready or refused comes once");
  CHECK(Judge()(refused()).check.isOver());
  CHECK_FALSE(Judge()(refused()).check.isReady());
  CHECK(Judge()(refused())(Ready{true}).rule == "nothing follows refused or finished");
  CHECK(begun().sentDone()(Summary())(Progress{0, 0}).rule == "nothing follows refused or finished");
  CHECK(begun()(Summary()).rule == "finished comes after done");
}

TEST_CASE("each file that asks for a base gets one, and no other does") {
  CHECK(begun()(Base{0}).rule == "a base was asked for");
  CHECK(begun().sent()(Base{0}).rule == "a base was asked for");
  CHECK(begun().sent(true)(Base{0})(Base{0}).rule == "a base was asked for");
  CHECK(begun().sent(true).sent(true)(Base{0})(Base{0}).isFine());
  CHECK(begun().sent(true).sent(true)(Base{0})(Base{0})(Base{0}).rule == "a base was asked for");
}

TEST_CASE("a base has a hash a chunk, and nothing else has hashes") {
  auto rule = "a base has a hash a chunk";
  CHECK(begun().sent(true)(hashes(1)).rule == rule);
  CHECK(begun().sent(true)(Base{0})(hashes(1)).rule == rule);
  CHECK(begun().sent(true)(Base{1})(hashes(1))(hashes(1)).rule == rule);
  CHECK(begun().sent(true)(Base{CHUNK_BYTES})(hashes(2)).rule == rule);
  CHECK(begun().sent(true)(Base{CHUNK_BYTES + 1})(hashes(2)).isFine());
  CHECK(begun().sent(true)(Base{MAX_FILE_BYTES})(hashes(MAX_HASHES))(hashes(MAX_HASHES)).isFine());
  // A new base takes the place of the one before, whose hashes need not all have come.
  CHECK(begun().sent(true)(Base{3 * CHUNK_BYTES})(hashes(1)).sent(true)(Base{1})(hashes(2)).rule == rule);
}

TEST_CASE("a base that crosses with the end of its file is in order and concerns another") {
  auto judge = begun();
  judge.sent(true);
  CHECK_FALSE(judge.check.concernsLast());
  judge.sent();  // the first has failed meanwhile
  judge(Base{CHUNK_BYTES})(hashes(1));
  CHECK(judge.isFine());
  CHECK_FALSE(judge.check.concernsLast());
  judge.sent(true).sent(true)(Base{CHUNK_BYTES});
  CHECK_FALSE(judge.check.concernsLast());
  judge(Base{0});
  CHECK(judge.check.concernsLast());
  CHECK(judge.isFine());
}

TEST_CASE("what fails was sent, and an entry has few problems") {
  CHECK(begun()(failed(0)).rule == "what failed was sent");
  CHECK(begun().sent()(failed(1)).rule == "what failed was sent");
  CHECK(begun().sent()(failed(~uint64_t(0))).rule == "what failed was sent");
  auto judge = begun();
  judge.sent();
  for (uint64_t i = 0; i < MAX_PROBLEMS_PER_ENTRY; ++i) judge(failed(0));
  CHECK(judge.isFine());
  CHECK(judge(failed(0)).rule == "an entry has few problems");
}

TEST_CASE("what is done was sent, and stays done") {
  CHECK(begun()(Progress{0, 0}).isFine());
  CHECK(begun()(Progress{1, 0}).rule == "what is done was sent");
  CHECK(begun().sent()(Progress{2, 0}).rule == "what is done was sent");
  CHECK(begun().sent().sent()(Progress{2, 0})(Progress{1, 0}).rule == "what is done stays done");
}

TEST_CASE("a summary has no more than was sent") {
  auto summed = [](Summary summary) { return begun().sent().sent().sentDone()(summary).rule; };
  auto rule = "no more is made than was sent";
  CHECK(summed({1, 1, 5, 5, 0, 1}).empty());
  CHECK(summed({2, 0, 5, 5, 9, 2}).empty());
  CHECK(summed({3, 0}) == rule);
  CHECK(summed({0, 3}) == rule);
  CHECK(summed({2, 1}) == rule);
  CHECK(summed({~uint64_t(0), ~uint64_t(0)}) == rule);
  CHECK(summed({1, 0, 0, 0, 0, 2}) == rule);
}

}  // namespace
}  // namespace postern::transfer
