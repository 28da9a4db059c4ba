#include <map>
#include <string>

#include "host/cli/commands.h"
#include "host/cli/failure-text.h"
#include "host/cli/status-source.h"

namespace postern::cli {

namespace {

constexpr auto WATCH_INTERVAL = 1 * kj::SECONDS;
constexpr auto CLEAR_SCREEN = "\033[H\033[2J"_kj;

// For monitors: 0, 1 and 4 are what they call OK, warning and (as 2 is ours for usage) critical.
ExitStatus checkStatusOf(kj::StringPtr colour) {
  if (colour == "green"_kj) return ExitStatus::DONE;
  return colour == "yellow"_kj ? ExitStatus::FAILED : ExitStatus::NOT_CONNECTED;
}

ExitStatus checked(const StatusArguments& arguments, kj::ArrayPtr<const VmState> states) {
  auto status = ExitStatus::DONE;
  if (!arguments.check) return status;
  for (auto& state : states) status = worst(status, checkStatusOf(state.colour));
  return status;
}

void printOnce(Invocation& run, kj::ArrayPtr<const VmState> states) {
  if (!run.options.json) {
    run.world.out(states.size() == 0 ? kj::str("no VMs; `postern enroll VM --transport ENDPOINT` adds one\n")
                                     : tableOf(states, run.colours()));
    return;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).key("vms").beginArray();
  for (auto& state : states) {
    json.beginObject();
    writeFields(json, state);
    json.endObject();
  }
  json.endArray().endObject();
  run.world.out(kj::str(json.finish(), '\n'));
}

// What has changed since the last look, as lines.
class Changes {
 public:
  kj::String since(kj::ArrayPtr<const VmState> states, bool asJson) {
    kj::Vector<kj::String> lines;
    std::map<std::string, std::string> now;
    for (auto& state : states) {
      auto& said = now[state.name.cStr()] = std::string(state.colour.cStr()) + "\n" + state.reason.cStr();
      auto before = shownBefore.find(state.name.cStr());
      if (before == shownBefore.end() || before->second != said) lines.add(changed(state, asJson));
    }
    for (auto& [name, said] : shownBefore) {
      if (now.count(name) == 0) lines.add(removed(name.c_str(), asJson));
    }
    shownBefore = std::move(now);
    return kj::strArray(lines, "");
  }

 private:
  std::map<std::string, std::string> shownBefore;

  static kj::String changed(const VmState& state, bool asJson) {
    if (!asJson) return kj::str(lineOf(state), '\n');
    JsonWriter json;
    json.beginObject();
    writeFields(json, state);
    json.endObject();
    return kj::str(json.finish(), '\n');
  }
  static kj::String removed(kj::StringPtr name, bool asJson) {
    if (!asJson) return kj::str(shown(name, 64), ": removed\n");
    JsonWriter json;
    json.beginObject().field("vm", name).field("state", "removed").endObject();
    return kj::str(json.finish(), '\n');
  }
};

[[noreturn]] void watch(Invocation& run, const StatusArguments& arguments) {
  Changes changes;
  for (;;) {
    auto due = run.world.now() + WATCH_INTERVAL;
    auto states = readStates(run, arguments.vms);
    if (run.world.outIsTerminal() && !run.options.json) {
      run.world.out(kj::str(CLEAR_SCREEN, tableOf(states, run.colours())));
    } else {
      auto lines = changes.since(states, run.options.json);
      if (lines.size() > 0) run.world.out(lines);
    }
    run.sleepUntil(due);
  }
}

// A monitor that asks for a verdict gets one when nobody is there to give it: it is not yellow's.
kj::Vector<VmState> readForCheck(Invocation& run, kj::ArrayPtr<const kj::String> names) {
  try {
    return readStates(run, names);
  } catch (CommandFailure& failed) {
    if (failed.failure.kind == client::FailureKind::FAILED) failed.failure.kind = client::FailureKind::NOT_CONNECTED;
    throw;
  }
}

}  // namespace

ExitStatus runStatus(Invocation& run, const StatusArguments& arguments) {
  if (arguments.watch) watch(run, arguments);
  auto states = arguments.check ? readForCheck(run, arguments.vms) : readStates(run, arguments.vms);
  printOnce(run, states);
  return checked(arguments, states);
}

}  // namespace postern::cli
