#include "host/session/transfer-limits.h"

#include <capnp/message.h>
#include <doctest/doctest.h>
#include <string.h>

#include "protocol/transfer/limits.h"
#include "tests/unit/host/limits-fixture.h"

namespace postern::host {
namespace {

using test::LimitsLab;
using test::Numbers;

constexpr auto S = kj::SECONDS;
constexpr auto MS = kj::MILLISECONDS;
constexpr uint64_t MB = 1'000'000;

struct Lab : public LimitsLab {
  TransferLimits transfers{limits};

  kj::Own<TransferLimits::Use> begin(uint64_t callerRate = 0) {
    auto begun = transfers.begin(callerRate);
    if (begun.is<kj::String>()) FAIL(begun.get<kj::String>().cStr());
    return kj::mv(begun.get<kj::Own<TransferLimits::Use>>());
  }
  kj::String refused() {
    auto begun = transfers.begin(0);
    return begun.is<kj::String>() ? kj::mv(begun.get<kj::String>()) : kj::String();
  }
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
  lab.port({"", 1000, 1});
  auto throughPort = lab.begin();
  CHECK((throughPort->enter("quick") == nullptr));
  CHECK_FALSE(throughPort->pace(1000).poll(lab.waitScope));
  lab.port({});
  auto asAsked = lab.begin(/* callerRate */ 100'000);
  CHECK((asAsked->enter("quick") == nullptr));
  CHECK(asAsked->pace(25'000).poll(lab.waitScope));
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

  lab.port({"", 0, 0, 0, 3});
  auto third = lab.begin();
  CHECK(lab.refused().size() == 0);
  auto fourth = lab.begin();
  CHECK(strstr(lab.refused().cStr(), "port") != nullptr);
  lab.port({});
  kj::Vector<kj::Own<TransferLimits::Use>> all;
  while (all.size() + 3 < transfer::MAX_TRANSFERS) all.add(lab.begin());
  CHECK(strstr(lab.refused().cStr(), "under way") != nullptr);
  all.removeLast();
  CHECK(lab.refused().size() == 0);
}

TEST_CASE("transfers begin so often in an hour, for a rule and for the port") {
  Lab lab;
  lab.rules({{"seldom", 0, 0, 0, 0, 2}});
  for (int i = 0; i < 2; ++i) {
    auto use = lab.begin();
    CHECK((use->enter("seldom") == nullptr));
    CHECK((use->enter("seldom") == nullptr));  // the same one: another entry
  }
  CHECK((lab.begin()->enter("seldom") != nullptr));
  lab.advance(30 * kj::MINUTES);
  CHECK((lab.begin()->enter("seldom") == nullptr));
  CHECK((lab.begin()->enter("seldom") != nullptr));
  lab.port({"", 0, 0, 0, 0, 1});
  { auto use = lab.begin(); }
  CHECK(strstr(lab.refused().cStr(), "in an hour") != nullptr);
}

}  // namespace
}  // namespace postern::host
