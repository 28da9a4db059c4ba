#include "host/session/transfer-limits.h"

#include <capnp/message.h>
#include <doctest/doctest.h>
#include <string.h>

#include "protocol/transfer/limits.h"

namespace postern::host {
namespace {

constexpr auto S = kj::SECONDS;
constexpr auto MS = kj::MILLISECONDS;
constexpr uint64_t MB = 1'000'000;

kj::TimePoint at(int64_t milliseconds) {
  return kj::origin<kj::TimePoint>() + milliseconds * MS;
}

// TokenBucket ------------------------------------------------------------------------------------------------------

TEST_CASE("a bucket gives its burst at once, and then its rate") {
  TokenBucket bucket(1000, 500);
  CHECK((bucket.take(500, at(0)) == 0 * S));
  CHECK((bucket.take(100, at(0)) == 100 * MS));
  CHECK((bucket.take(100, at(100)) == 100 * MS));
  CHECK((bucket.take(100, at(10'000)) == 0 * S));
  CHECK((bucket.take(400, at(10'000)) == 0 * S));
  CHECK((bucket.take(1, at(10'000)) == 1 * MS));
}

TEST_CASE("a piece that is larger than the burst waits, and those behind it wait longer") {
  TokenBucket bucket(1000, 10);
  CHECK((bucket.take(1000, at(0)) == 990 * MS));
  CHECK((bucket.take(1000, at(0)) == 1990 * MS));
  CHECK((bucket.take(0, at(3000)) == 0 * S));
}

TEST_CASE("in the long run no more passes than the rate, however it is taken, to a part in ten thousand") {
  for (uint64_t rate : {uint64_t(1000), uint64_t(3'333'333), uint64_t(1) << 31}) {
    TokenBucket bucket(rate, 60 << 10);
    auto now = at(0);
    uint64_t taken = 0;
    for (int i = 0; i < 20'000; ++i) {
      uint64_t piece = 1 + (uint64_t(i) * 7919) % (60 << 10);
      now += bucket.take(piece, now);
      taken += piece;
    }
    auto seconds = static_cast<double>((now - at(0)) / kj::NANOSECONDS) / 1e9;
    auto most = static_cast<double>(rate) * seconds + (60 << 10);
    CHECK(static_cast<double>(taken) <= most * 1.0001);
    CHECK(static_cast<double>(taken) >= most * 0.9999 - (60 << 10));
  }
}

TEST_CASE("numbers out of all proportion make no bucket wrong: it waits long, or not at all") {
  for (uint64_t rate : {uint64_t(1), UINT64_MAX}) {
    for (uint64_t burst : {uint64_t(0), UINT64_MAX}) {
      TokenBucket bucket(rate, burst);
      for (uint64_t piece : {uint64_t(0), uint64_t(1), UINT64_MAX}) CHECK((bucket.take(piece, at(0)) >= 0 * S));
    }
  }
  TokenBucket none;
  CHECK((none.take(UINT64_MAX, at(0)) == 0 * S));
  CHECK(none.tryTake(UINT64_MAX, at(0)));
}

TEST_CASE("what is only tried costs nothing when it is not had") {
  TokenBucket bucket(10, 2);
  CHECK(bucket.tryTake(1, at(0)));
  CHECK(bucket.tryTake(1, at(0)));
  for (int i = 0; i < 100; ++i) CHECK_FALSE(bucket.tryTake(1, at(0)));
  CHECK(bucket.tryTake(1, at(100)));
  CHECK_FALSE(bucket.tryTake(1, at(100)));
}

// TransferLimits ---------------------------------------------------------------------------------------------------

struct Lab {
  kj::EventLoop loop;
  kj::WaitScope waitScope{loop};
  kj::TimerImpl timer{kj::origin<kj::TimePoint>() + 1000 * S};
  TransferLimits limits{timer};
  capnp::MallocMessageBuilder message;
  schema::Grant::Builder grant = message.initRoot<schema::Grant>();

  struct Numbers {
    kj::StringPtr rule;
    uint64_t rate = 0, burst = 0, peak = 0, open = 0;
  };
  static void set(schema::Limit::Builder limit, const Numbers& numbers) {
    limit.setRule(numbers.rule);
    limit.setRate(numbers.rate);
    limit.setBurst(numbers.burst);
    limit.setPeak(numbers.peak);
    limit.setOpen(numbers.open);
  }
  void rules(std::initializer_list<Numbers> all) {
    auto list = grant.initFiles(1)[0].initLimits(static_cast<unsigned>(all.size()));
    unsigned i = 0;
    for (auto& numbers : all) set(list[i++], numbers);
  }
  kj::Own<TransferLimits::Use> begin(uint64_t callerRate = 0) {
    auto begun = limits.begin(grant.asReader(), grant.asReader().getFiles()[0], callerRate);
    if (begun.is<kj::String>()) FAIL(begun.get<kj::String>().cStr());
    return kj::mv(begun.get<kj::Own<TransferLimits::Use>>());
  }
  kj::String refused() {
    auto begun = limits.begin(grant.asReader(), grant.asReader().getFiles()[0], 0);
    return begun.is<kj::String>() ? kj::mv(begun.get<kj::String>()) : kj::String();
  }
  void advance(kj::Duration by) { timer.advanceTo(timer.now() + by); }
};

TEST_CASE("what no limit is about passes at once") {
  Lab lab;
  lab.rules({{"other", 1, 1}});
  auto use = lab.begin();
  CHECK((use->enter("free") == nullptr));
  CHECK(use->pace(UINT64_MAX).poll(lab.waitScope));
}

TEST_CASE("transfers of one rule share its rate, and are served in turn") {
  Lab lab;
  lab.rules({{"slow", 1000, 100}});
  auto first = lab.begin(), second = lab.begin();
  CHECK((first->enter("slow") == nullptr));
  CHECK((second->enter("slow") == nullptr));
  CHECK(first->pace(100).poll(lab.waitScope));
  auto a = first->pace(100), b = second->pace(100);
  CHECK_FALSE(a.poll(lab.waitScope));
  lab.advance(100 * MS);
  CHECK(a.poll(lab.waitScope));
  CHECK_FALSE(b.poll(lab.waitScope));
  lab.advance(100 * MS);
  CHECK(b.poll(lab.waitScope));
  // A new transfer does not begin with a full burst again.
  first = nullptr;
  second = nullptr;
  auto third = lab.begin();
  CHECK((third->enter("slow") == nullptr));
  CHECK_FALSE(third->pace(100).poll(lab.waitScope));
}

TEST_CASE("each entry is paced by the rule that decided it, and all of them by the port and by what the caller wants") {
  Lab lab;
  lab.rules({{"slow", 1000, 1}, {"quick", 100 * MB, MB}});
  auto use = lab.begin();
  CHECK((use->enter("quick") == nullptr));
  CHECK(use->pace(1000).poll(lab.waitScope));
  CHECK((use->enter("slow") == nullptr));
  CHECK_FALSE(use->pace(1000).poll(lab.waitScope));
  CHECK((use->enter("quick") == nullptr));
  CHECK(use->pace(1000).poll(lab.waitScope));
  Lab::set(lab.grant.initPort(), {"", 1000, 1});
  auto throughPort = lab.begin();
  CHECK((throughPort->enter("quick") == nullptr));
  CHECK_FALSE(throughPort->pace(1000).poll(lab.waitScope));
  Lab::set(lab.grant.initPort(), {});
  auto asAsked = lab.begin(/* callerRate */ 100'000);
  CHECK((asAsked->enter("quick") == nullptr));
  CHECK(asAsked->pace(transfer::DATA_BYTES).poll(lab.waitScope));
  CHECK_FALSE(asAsked->pace(1000).poll(lab.waitScope));
}

TEST_CASE("a burst goes at the peak's rate") {
  Lab lab;
  lab.rules({{"r", MB, 100 * MB, 10 * MB}});
  auto use = lab.begin();
  CHECK((use->enter("r") == nullptr));
  CHECK(use->pace(MB).poll(lab.waitScope));  // a tenth of a second at the peak
  auto more = use->pace(MB);
  CHECK_FALSE(more.poll(lab.waitScope));
  lab.advance(100 * MS);
  CHECK(more.poll(lab.waitScope));
}

// T78
TEST_CASE("a rule's and a port's transfers are counted, and so are all of a VM's, and places come free again") {
  Lab lab;
  lab.rules({{"one", 0, 0, 0, 1}});
  auto first = lab.begin(), second = lab.begin();
  CHECK((first->enter("one") == nullptr));
  CHECK((first->enter("one") == nullptr));  // of the same transfer: another entry
  CHECK((second->enter("one") != nullptr));
  CHECK((second->enter("another") == nullptr));
  first = nullptr;
  CHECK((second->enter("one") == nullptr));

  Lab::set(lab.grant.initPort(), {"", 0, 0, 0, 3});
  auto third = lab.begin();
  CHECK(lab.refused().size() == 0);
  auto fourth = lab.begin();
  CHECK(strstr(lab.refused().cStr(), "port") != nullptr);
  Lab::set(lab.grant.initPort(), {});
  kj::Vector<kj::Own<TransferLimits::Use>> all;
  while (all.size() + 3 < transfer::MAX_TRANSFERS) all.add(lab.begin());
  CHECK(strstr(lab.refused().cStr(), "under way") != nullptr);
  all.removeLast();
  CHECK(lab.refused().size() == 0);
}

TEST_CASE("rules that come and go with policies do not fill the memory, and those in use stay") {
  Lab lab;
  lab.rules({{"kept", 1000, 1, 0, 1}});
  auto use = lab.begin();
  CHECK((use->enter("kept") == nullptr));
  for (int i = 0; i < 10'000; ++i) {
    auto name = kj::str("rule", i);
    lab.rules({{name, 1, 1}});
    auto passing = lab.begin();
    CHECK((passing->enter(name) == nullptr));
    CHECK(passing->pace(1).poll(lab.waitScope));
    lab.advance(1 * S);
  }
  lab.rules({{"kept", 1000, 1, 0, 1}});
  CHECK((lab.begin()->enter("kept") != nullptr));
}

}  // namespace
}  // namespace postern::host
