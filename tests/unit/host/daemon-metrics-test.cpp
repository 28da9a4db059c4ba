// What posternd counts for its metrics, of what session processes and guests say: words of ours, whatever they say.

#include "host/daemon/daemon-metrics.h"

#include <capnp/message.h>
#include <doctest/doctest.h>
#include <kj/async-io.h>
#include <stdlib.h>
#include <time.h>

#include "host/daemon/vm-metrics.h"

namespace postern::host {
namespace {

using Kind = schema::SessionObserver::Kind;
using Refused = schema::SessionObserver::Refused;

kj::String pageOf(const Counters& counters) {
  Exposition page;
  page.family("m", MetricType::COUNTER, "H.");
  counters.write(page);
  return page.finish();
}

bool has(kj::StringPtr text, kj::StringPtr part) {
  return strstr(text.cStr(), part.cStr()) != nullptr;
}

struct Counted {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  DaemonMetrics metrics{io.provider->getTimer()};

  void operation(kj::StringPtr call, kj::StringPtr outcome, uint64_t bytes = 0) {
    metrics.operation({1, kj::str(call), kj::str(outcome), 0 * kj::SECONDS, bytes, nullptr});
  }
};

TEST_CASE("operations are counted by call and outcome, and their bytes by call") {
  Counted counted;
  counted.operation("info", "done");
  counted.operation("power.shutdown", "accepted");
  counted.operation("file.put", "failed: no-space");
  counted.operation("file.put", "failed: exists", 5);
  counted.operation("file.put", "denied by the guest", 7);
  counted.operation("service.http", "done", 9);
  auto page = pageOf(counted.metrics.operations);
  CHECK(has(page, "m{call=\"info\",outcome=\"done\"} 1\n"));
  CHECK(has(page, "m{call=\"power.shutdown\",outcome=\"accepted\"} 1\n"));
  CHECK(has(page, "m{call=\"file.put\",outcome=\"failed\"} 2\n"));
  CHECK(has(page, "m{call=\"file.put\",outcome=\"denied by the guest\"} 1\n"));
  CHECK(has(page, "m{call=\"service\",outcome=\"done\"} 1\n"));
  page = pageOf(counted.metrics.operationBytes);
  CHECK(has(page, "m{call=\"file.put\"} 12\n"));
  CHECK(has(page, "m{call=\"service\"} 9\n"));
}

TEST_CASE("single files of a copy, and pings, are not counted as operations") {
  Counted counted;
  counted.operation("ping", "7 of them, 0 failed");
  OperationReport one{1, kj::str("file.put"), kj::str("done"), 0 * kj::SECONDS, 10, FileReport()};
  KJ_ASSERT_NONNULL(one.files).entry = kj::str("/srv/a");
  counted.metrics.operation(one);
  CHECK(counted.metrics.operations.size() == 0);
  CHECK(counted.metrics.operationBytes.size() == 0);
}

TEST_CASE("a session process that invents calls and outcomes makes no more than one series of them") {
  Counted counted;
  for (unsigned i = 0; i < 5'000; ++i) {
    counted.operation(kj::str("call", i), kj::str("outcome ", i), 1);
    counted.operation(kj::str("service.s", i), "done");
    counted.operation("file.get", kj::str("failed: ", i));
  }
  CHECK(counted.metrics.operations.size() == 3);
  CHECK(counted.metrics.operationBytes.size() == 1);
  CHECK(has(pageOf(counted.metrics.operations), "m{call=\"other\",outcome=\"other\"} 5000\n"));
}

TEST_CASE("bytes that a session process invents stop at their bound, and do not begin again") {
  Counted counted;
  for (unsigned i = 0; i < 4; ++i) counted.operation("file.get", "done", uint64_t(1) << 62);
  CHECK(has(pageOf(counted.metrics.operationBytes), "m{call=\"file.get\"} 4611686018427387904\n"));
  CHECK(counted.metrics.operationBytes.total() == uint64_t(1) << 62);
}

TEST_CASE("denials are counted by rule, and of too many rules together") {
  Counted counted;
  counted.metrics.allowed();
  counted.metrics.denied("");
  for (unsigned i = 0; i < 2 * MAX_DENYING_RULES; ++i) counted.metrics.denied(kj::str("r", i));
  CHECK(counted.metrics.denials.size() == MAX_DENYING_RULES + 1);
  CHECK(counted.metrics.denials.total() == 2 * MAX_DENYING_RULES + 1);
  CHECK(has(pageOf(counted.metrics.denials), "m{rule=\"none\"} 1\n"));
  auto decisions = pageOf(counted.metrics.decisions);
  CHECK(has(decisions, "m{outcome=\"allowed\"} 1\n"));
  CHECK(has(decisions, kj::str("m{outcome=\"denied\"} ", 2 * MAX_DENYING_RULES + 1, "\n")));
}

TEST_CASE("who is turned away is counted by why, from nought") {
  Counted counted;
  CHECK(has(pageOf(counted.metrics.turnedAway), "m{reason=\"too-often\"} 0\n"));
  counted.metrics.turned({UnknownPeer(), kj::String(), Stranger()});
  counted.metrics.turned({UnknownPeer(), kj::str("web1"), Refusal::TOO_OFTEN});
  auto page = pageOf(counted.metrics.turnedAway);
  CHECK(has(page, "m{reason=\"stranger\"} 1\n"));
  CHECK(has(page, "m{reason=\"too-often\"} 1\n"));
}

TEST_CASE("a loop that is held up is seen to lag by that much") {
  Counted counted;
  auto& timer = counted.io.provider->getTimer();
  timer.afterDelay(3 * LOOP_LAG_EVERY).wait(counted.io.waitScope);
  auto before = counted.metrics.loopLag.count();
  CHECK(before >= 1);
  timespec held{0, 600'000'000};
  nanosleep(&held, nullptr);
  timer.afterDelay(2 * LOOP_LAG_EVERY).wait(counted.io.waitScope);
  Exposition page;
  page.family("m", MetricType::HISTOGRAM, "H.");
  counted.metrics.loopLag.write(page);
  auto text = page.finish();
  auto* sum = strstr(text.cStr(), "m_sum ");
  REQUIRE(sum != nullptr);
  CHECK(strtod(sum + 6, nullptr) >= 0.3);
}

// Of one VM --------------------------------------------------------------------------------------------------------

TEST_CASE("a VM's sessions are counted by how they began and ended, from nought where that may be watched for") {
  VmMetrics metrics;
  CHECK(has(pageOf(metrics.handshakes), "m{outcome=\"refused\",reason=\"keys\"} 0\n"));
  metrics.event(Kind::CONNECTED, 0);
  metrics.event(Kind::REFUSED, uint16_t(Refused::KEYS));
  metrics.event(Kind::REFUSED, uint16_t(Refused::CLONED_IDENTITY));
  metrics.event(Kind::REFUSED, uint16_t(Refused::ROLLED_BACK));
  metrics.event(Kind::TOKEN_REUSE, 0);
  metrics.event(Kind::LOST, uint16_t(schema::SessionObserver::Loss::PROTOCOL_ERROR));
  metrics.event(Kind::LOST, 0);
  metrics.event(Kind::GOODBYE, 0);
  metrics.event(Kind::ENROLLED, 0);
  metrics.event(Kind::ROLLBACK, 0);
  metrics.event(Kind::TROUBLE, 0);
  auto page = pageOf(metrics.handshakes);
  for (auto reason : {"keys", "cloned-identity", "rolled-back", "token-reuse"}) {
    CHECK(has(page, kj::str("m{outcome=\"refused\",reason=\"", reason, "\"} 1\n")));
  }
  CHECK(has(page, "m{outcome=\"accepted\",reason=\"none\"} 1\n"));
  page = pageOf(metrics.losses);
  CHECK(has(page, "m{reason=\"cut\"} 1\n"));
  CHECK(has(page, "m{reason=\"protocol-error\"} 1\n"));
  CHECK(metrics.goodbyes.total() == 1);
  CHECK(metrics.enrolments == 1);
  CHECK(metrics.rollbacks == 1);
}

TEST_CASE("codes that do not exist are counted as other or as the usual, and make no series") {
  VmMetrics metrics;
  for (unsigned code = 0; code < 65536; code += 7) {
    for (auto kind : {Kind::REFUSED, Kind::LOST, Kind::GOODBYE}) metrics.event(kind, uint16_t(code));
  }
  CHECK(metrics.handshakes.size() <= 6);
  CHECK(metrics.losses.size() <= 2);
  CHECK(metrics.goodbyes.size() <= 5);
}

// Pings ------------------------------------------------------------------------------------------------------------

struct Told {
  capnp::MallocMessageBuilder message;
  schema::SessionObserver::PingsParams::Builder params = message.initRoot<schema::SessionObserver::PingsParams>();
};

TEST_CASE("pings arrive in the buckets that they were measured in") {
  PingTally tally;
  CHECK(tally.isEmpty());
  tally.answered(10 * kj::MICROSECONDS);
  tally.answered(90 * kj::MICROSECONDS);
  tally.answered(3 * kj::SECONDS);
  tally.failed();
  CHECK_FALSE(tally.isEmpty());
  Told told;
  tally.write(told.params);
  VmMetrics metrics;
  metrics.pinged(KJ_REQUIRE_NONNULL(parsePingReport(told.params.asReader())));
  Exposition page;
  page.family("m", MetricType::HISTOGRAM, "H.");
  metrics.pings.write(page);
  auto text = page.finish();
  CHECK(has(text, "m_bucket{le=\"0.00002\"} 1\n"));
  CHECK(has(text, "m_bucket{le=\"0.0001\"} 2\n"));
  CHECK(has(text, "m_bucket{le=\"2.5\"} 2\n"));
  CHECK(has(text, "m_bucket{le=\"+Inf\"} 3\n"));
  CHECK(has(text, "m_sum 3.0001\n"));
  CHECK(metrics.failedPings == 1);
}

TEST_CASE("a session's numbers of pings are bounded, and a list of another length is none") {
  Told told;
  for (unsigned size : {0u, 1u, unsigned(PING_BOUNDS.size()), unsigned(PING_BOUNDS.size() + 2)}) {
    told.params.initCounts(size);
    CHECK((parsePingReport(told.params.asReader()) == nullptr));
  }
  auto counts = told.params.initCounts(unsigned(PING_BOUNDS.size() + 1));
  for (unsigned i = 0; i < counts.size(); ++i) counts.set(i, kj::maxValue);
  told.params.setNanoseconds(kj::maxValue);
  told.params.setFailures(kj::maxValue);
  auto report = KJ_REQUIRE_NONNULL(parsePingReport(told.params.asReader()));
  for (auto count : report.counts) CHECK(count <= uint64_t(1) << 24);
  CHECK(report.failures <= uint64_t(1) << 24);
  counts = told.params.initCounts(unsigned(PING_BOUNDS.size() + 1));
  counts.set(0, 2);
  CHECK(KJ_REQUIRE_NONNULL(parsePingReport(told.params.asReader())).seconds <= 120);
}

}  // namespace
}  // namespace postern::host
