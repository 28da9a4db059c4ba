// postern channel list, stats, block, unblock, close.

#include <map>
#include <string>

#include "host/cli/channel-text.h"
#include "host/cli/commands.h"

namespace postern::cli {

namespace {

constexpr auto WATCH_INTERVAL = 1 * kj::SECONDS;
constexpr auto CLEAR_SCREEN = "\033[H\033[2J"_kj;

// Each is looked at once: what a message's reader may look at in all is bounded.
template <typename List>
auto elementsOf(List list) {
  kj::Vector<kj::Decay<decltype(list[0])>> elements(list.size());
  for (auto element : list) elements.add(element);
  return elements;
}

using PortsResponse = capnp::Response<host::schema::Control::PortsResults>;

PortsResponse readPorts(Invocation& run, kj::StringPtr vm) {
  auto request = run.control().control().portsRequest();
  request.setVm(vm);
  auto response = run.await(request.send(), "posternd");
  run.check(response, vm);
  return response;
}

// One look at the counters.
class Stats {
 public:
  explicit Stats(PortsResponse given)
      : response(kj::mv(given)), ports(elementsOf(response.getPorts())), rules(elementsOf(response.getRules())) {}

  kj::String text(kj::ArrayPtr<const Pace> pace, Colours colours) const {
    if (ports.empty()) return kj::str("no VMs\n");
    if (rules.empty()) return tableOf(ports, pace, colours);
    return kj::str(tableOf(ports, pace, colours), '\n', tableOf(rules, colours));
  }
  kj::String json() const {
    JsonWriter json;
    json.beginObject().field("ok", true).key("ports");
    write(json, ports);
    json.key("rules");
    write(json, rules);
    json.endObject();
    return kj::str(json.finish(), '\n');
  }

  // What has passed each port since that look.
  kj::Array<Pace> paceSince(const Stats& before, kj::Duration passed) const {
    std::map<std::string, host::schema::Traffic::Reader> earlier;
    for (auto& port : before.ports) earlier.emplace(port.getVm().cStr(), port.getOutOf());
    double seconds = double(passed / kj::NANOSECONDS) / 1e9;
    return KJ_MAP(port, ports) {
      auto found = earlier.find(port.getVm().cStr());
      if (found == earlier.end() || seconds <= 0) return Pace{0, 0};
      auto rate = [&](uint64_t then, uint64_t now) { return now < then ? 0 : double(now - then) / seconds; };
      return Pace{rate(found->second.getBytesThere(), port.getOutOf().getBytesThere()),
                  rate(found->second.getBytesBack(), port.getOutOf().getBytesBack())};
    };
  }

 private:
  PortsResponse response;
  kj::Vector<host::schema::Port::Reader> ports;
  kj::Vector<host::schema::RuleTraffic::Reader> rules;
};

[[noreturn]] void watchStats(Invocation& run, kj::StringPtr vm) {
  bool drawn = run.world.outIsTerminal() && !run.options.json;
  kj::Maybe<Stats> before;
  kj::String printed;
  auto looked = run.world.now();
  for (;;) {
    Stats stats(readPorts(run, vm));
    auto now = run.world.now();
    kj::Array<Pace> pace;
    KJ_IF_MAYBE (earlier, before) pace = stats.paceSince(*earlier, now - looked);
    auto text = run.options.json ? stats.json() : stats.text(pace, run.colours());
    if (drawn) {
      run.world.out(kj::str(CLEAR_SCREEN, text));
    } else if (text != printed) {
      run.world.out(text);
    }
    printed = kj::mv(text);
    before = kj::mv(stats);
    looked = now;
    run.sleepUntil(now + WATCH_INTERVAL);
  }
}

void writeDone(Invocation& run, kj::String text, JsonWriter& json) {
  json.endObject();
  run.world.out(run.options.json ? kj::str(json.finish(), '\n') : kj::mv(text));
}

}  // namespace

ExitStatus runChannelList(Invocation& run, const ChannelListArguments& arguments) {
  auto request = run.control().control().channelsRequest();
  request.setVm(arguments.vm);
  auto response = run.await(request.send(), "posternd");
  run.check(response, arguments.vm);
  auto channels = elementsOf(response.getChannels());
  if (!run.options.json) {
    run.world.out(channels.empty() ? kj::str("no channels\n") : tableOf(channels, run.colours()));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).key("channels");
  write(json, channels);
  json.endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

ExitStatus runChannelStats(Invocation& run, const ChannelStatsArguments& arguments) {
  if (arguments.watch) watchStats(run, arguments.vm);
  Stats stats(readPorts(run, arguments.vm));
  run.world.out(run.options.json ? stats.json() : stats.text(nullptr, run.colours()));
  return ExitStatus::DONE;
}

ExitStatus runChannelBlock(Invocation& run, const ChannelBlockArguments& arguments) {
  auto request = run.control().control().blockPortRequest();
  request.setVm(arguments.vm);
  request.setBlocked(arguments.block);
  auto response = run.await(request.send(), "posternd");
  run.check(response, arguments.vm);
  auto cut = response.getCut();
  JsonWriter json;
  json.beginObject().field("ok", true).field("vm", arguments.vm).field("blocked", arguments.block).field("cut", cut);
  writeDone(run,
            arguments.block ? kj::str(arguments.vm, ": blocked, ", cut, " connections cut\n")
                            : kj::str(arguments.vm, ": not blocked by hand any more\n"),
            json);
  return ExitStatus::DONE;
}

ExitStatus runChannelClose(Invocation& run, const ChannelCloseArguments& arguments) {
  auto request = run.control().control().closeChannelRequest();
  request.setId(arguments.id);
  auto response = run.await(request.send(), "posternd");
  run.check(response, nullptr);
  auto id = channelIdText(arguments.id);
  JsonWriter json;
  json.beginObject().field("ok", true).field("id", id);
  writeDone(run, kj::str(id, ": closed\n"), json);
  return ExitStatus::DONE;
}

}  // namespace postern::cli
