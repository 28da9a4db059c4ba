#include "host/cli/declare.h"

namespace postern::cli {

namespace {

constexpr uint64_t MAX_PINGS = 1'000'000'000;
constexpr uint32_t MAX_LINES = 1'000'000;

}  // namespace

void declareMonitoring(CLI::App& app, Declared& declared) {
  addCommand<StatusArguments>(
      app, "status", "Shows what VMs are up to: green, yellow, red or gray, why and since when", declared,
      [](CLI::App& sub, StatusArguments& arguments) {
        addVms(sub, arguments.vms);
        sub.add_flag("--watch", arguments.watch, "Goes on, and shows what changes");
        sub.add_flag("--check", arguments.check, "For monitors: exit status 0 green, 1 yellow, 4 red or gray");
      },
      [](const StatusArguments& arguments) -> kj::Maybe<kj::String> {
        if (arguments.check && arguments.watch) return kj::str("--check looks once: leave --watch out");
        if (arguments.check && arguments.vms.empty()) return kj::str("--check wants the names of VMs");
        return nullptr;
      });
  addCommand<PingArguments>(
      app, "ping", "Measures the way to a VM's agent: 'link' from its session process, 'total' from here", declared,
      [](CLI::App& sub, PingArguments& arguments) {
        addVm(sub, arguments.vm);
        addNumber(sub, "-c,--count", arguments.count, MAX_PINGS, "How many; 0: until interrupted");
        addDuration(sub, "-i,--interval",
                    "Between two pings (default: 1 s); 0: as fast as it goes, and only the summary",
                    [&arguments](kj::Duration value) { arguments.interval = value; });
      });
  addCommand<InfoArguments>(app, "info", "Asks a guest what it is: system, network, file systems, users", declared,
                            [](CLI::App& sub, InfoArguments& arguments) { addVm(sub, arguments.vm); });
  addCommand<DoctorArguments>(
      app, "doctor", "Looks at each link from configuration to heartbeat, and says what mends a broken one", declared,
      [](CLI::App& sub, DoctorArguments& arguments) { addVm(sub, arguments.vm)->required(false); });
  addCommand<EventsArguments>(app, "events", "Shows what happened: connected, lost, booted, denied, power ...",
                              declared, [](CLI::App& sub, EventsArguments& arguments) {
                                addVm(sub, arguments.vm)->required(false);
                                sub.add_flag("-f,--follow", arguments.follow, "Goes on, and shows what happens");
                                addNumber(sub, "-n,--last", arguments.backlog, MAX_LINES,
                                          "How many of the past events");
                              });
}

}  // namespace postern::cli
