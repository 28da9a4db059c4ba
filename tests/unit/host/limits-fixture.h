#pragma once
// LimitsLab: a VM's limits with a hand-turned clock, and a grant by which posternd says them.

#include <capnp/message.h>
#include <doctest/doctest.h>

#include <initializer_list>

#include "host/session/port-limits.h"

namespace postern::host::test {

struct Numbers {
  kj::StringPtr rule = ""_kj;
  uint64_t rate = 0, burst = 0, peak = 0, open = 0, calls = 0, bytes = 0;
  uint16_t zero = 0;

  void write(schema::Limit::Builder limit) const {
    limit.setRule(rule);
    limit.setRate(rate);
    limit.setBurst(burst);
    limit.setPeak(peak);
    limit.setOpen(open);
    limit.setCalls(calls);
    limit.setBytes(bytes);
    limit.setZero(zero);
  }
};

struct LimitsLab {
  kj::EventLoop loop;
  kj::WaitScope waitScope{loop};
  kj::TimerImpl timer{kj::origin<kj::TimePoint>() + 1000 * kj::SECONDS};
  PortLimits limits{timer};
  kj::Vector<kj::Own<LimitGate>> granted;

  // By a grant, as for a file call.
  void rules(std::initializer_list<Numbers> all) {
    capnp::MallocMessageBuilder message;
    auto grant = message.initRoot<schema::Grant>();
    auto list = grant.initFiles(1)[0].initLimits(static_cast<unsigned>(all.size()));
    unsigned i = 0;
    for (auto& numbers : all) numbers.write(list[i++]);
    granted = limits.learn(grant.asReader());
  }
  void port(const Numbers& numbers) {
    capnp::MallocMessageBuilder message;
    numbers.write(message.initRoot<schema::Limit>());
    limits.setPort(message.getRoot<schema::Limit>());
  }
  void advance(kj::Duration by) { timer.advanceTo(timer.now() + by); }
};

}  // namespace postern::host::test
