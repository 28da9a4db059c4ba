#include "host/cli/commands.h"
#include "host/cli/failure-text.h"
#include "host/cli/latencies.h"
#include "host/cli/quantity.h"

namespace postern::cli {

namespace {

// More would not fit a kj::Duration.
constexpr uint64_t MAX_NANOSECONDS = uint64_t(1) << 62;

class Pings {
 public:
  Pings(Invocation& run, const PingArguments& arguments)
      : run(run), arguments(arguments), flood(arguments.interval == 0 * kj::SECONDS) {}

  void go() {
    auto vm = run.openVm(arguments.vm, {"ping"_kj});
    for (uint64_t i = 1; arguments.count == 0 || i <= arguments.count; ++i) {
      auto sent = run.world.now();
      try {
        one(*vm, i, sent);
      } catch (CommandFailure& failed) {
        // A socket that ended: posternd knows whether that was policy, which it says by not giving out another.
        if (failed.failure.kind == client::FailureKind::FAILED) run.openVm(arguments.vm, {"ping"_kj});
        throw;
      }
      if (i != arguments.count) run.sleepUntil(sent + arguments.interval);
    }
  }

  bool any() const { return count > 0; }

  kj::String summary() const {
    auto line = [](kj::StringPtr name, const Latencies::Summary& figures) {
      return kj::str(name, " min/p50/p99/max ", describeLatency(figures.min), " / ", describeLatency(figures.p50),
                     " / ", describeLatency(figures.p99), " / ", describeLatency(figures.max), '\n');
    };
    return kj::str(arguments.vm, ": ", count, count == 1 ? " ping\n" : " pings\n", line("link ", link.summary()),
                   line("total", total.summary()));
  }

  void writeFields(JsonWriter& json) const {
    json.field("vm", arguments.vm).field("count", count);
    if (count == 0) return;
    auto write = [&](kj::StringPtr name, const Latencies::Summary& figures) {
      json.key(name).beginObject().field("minMs", milliseconds(figures.min)).field("p50Ms", milliseconds(figures.p50));
      json.field("p99Ms", milliseconds(figures.p99)).field("maxMs", milliseconds(figures.max)).endObject();
    };
    write("link", link.summary());
    write("total", total.summary());
  }

 private:
  Invocation& run;
  const PingArguments& arguments;
  const bool flood;
  Latencies link;
  Latencies total;
  uint64_t count = 0;

  void one(client::VmClient& vm, uint64_t number, kj::TimePoint sent) {
    auto response = run.await(vm.calls().pingRequest().send(), arguments.vm);
    auto took = run.world.now() - sent;
    run.check(response, arguments.vm);
    auto onLink = static_cast<int64_t>(kj::min(response.getLinkNanoseconds(), MAX_NANOSECONDS)) * kj::NANOSECONDS;
    link.add(onLink);
    total.add(took);
    ++count;
    if (flood || run.options.json) return;
    run.world.out(kj::str(arguments.vm, ": ping ", number, ": link ", describeLatency(onLink), ", total ",
                          describeLatency(took), '\n'));
  }
};

}  // namespace

ExitStatus runPing(Invocation& run, const PingArguments& arguments) {
  Pings pings(run, arguments);
  auto status = ExitStatus::DONE;
  try {
    pings.go();
  } catch (CommandFailure& failed) {
    if (!pings.any()) throw;
    if (failed.failure.kind != client::FailureKind::INTERRUPTED) {
      if (!run.options.json) run.world.out(pings.summary());
      throw;
    }
    status = ExitStatus::INTERRUPTED;
  }
  if (!run.options.json) {
    run.world.out(pings.summary());
    return status;
  }
  JsonWriter json;
  json.beginObject().field("ok", true);
  pings.writeFields(json);
  json.endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return status;
}

}  // namespace postern::cli
