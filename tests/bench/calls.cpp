#include "tests/bench/calls.h"

#include <kj/debug.h>

#include "tests/bench/clock.h"

namespace postern::bench {

namespace {

// One of the calls under way: when it returns, the next takes its place.
kj::Promise<void> lane(test::Echo::Client& echo, size_t& left) {
  if (left == 0) return kj::READY_NOW;
  --left;
  auto request = echo.pingRequest();
  request.setNumber(left);
  return request.send().then([&echo, &left](capnp::Response<test::Echo::PingResults>) { return lane(echo, left); });
}

}  // namespace

kj::Vector<double> pingOneByOne(test::Echo::Client& echo, size_t count, kj::WaitScope& waitScope) {
  kj::Vector<double> samples(count);
  for (size_t i = 0; i < count; ++i) {
    double began = wallSeconds();
    auto request = echo.pingRequest();
    request.setNumber(i);
    auto response = request.send().wait(waitScope);
    samples.add(wallSeconds() - began);
    KJ_REQUIRE(response.getNumber() == i);
  }
  return samples;
}

kj::Promise<void> pingWhile(test::Echo::Client& echo, const bool& running, kj::Vector<double>& samples) {
  if (!running) return kj::READY_NOW;
  double began = wallSeconds();
  return echo.pingRequest().send().then([&echo, &running, &samples, began](capnp::Response<test::Echo::PingResults>) {
    samples.add(wallSeconds() - began);
    return pingWhile(echo, running, samples);
  });
}

double pingPipelined(test::Echo::Client& echo, size_t count, size_t window, kj::WaitScope& waitScope) {
  size_t left = count;
  double began = wallSeconds();
  auto lanes = kj::heapArrayBuilder<kj::Promise<void>>(window);
  for (size_t i = 0; i < window; ++i) lanes.add(lane(echo, left));
  kj::joinPromises(lanes.finish()).wait(waitScope);
  return static_cast<double>(count) / (wallSeconds() - began);
}

}  // namespace postern::bench
