#include <kj/debug.h>
#include <unistd.h>

#include "guest-agent/bounded-text.h"
#include "guest-agent/info/probe.h"
#include "guest-agent/log/log.h"
#include "guest-agent/power/inhibitors.h"
#include "guest-agent/power/power-way.h"

namespace postern::guest {

namespace {

using Failure = kj::Maybe<kj::String>;

// How long a program may think before it counts as at work.
constexpr auto START_TIME = 10 * kj::SECONDS;

kj::Promise<Failure> startProgram(Children& children, kj::Array<kj::String> argv) {
  auto program = kj::str(argv[0]);
  // Detached: it is not killed, and ends with nothing of ours.
  ChildDescription description{kj::mv(argv), kj::arr(kj::str(CHILD_PATH)), nullptr, kj::String(), START_TIME, true};
  return children.run(kj::mv(description)).then([program = kj::mv(program)](ChildEnd end) -> Failure {
    KJ_SWITCH_ONEOF(end) {
      KJ_CASE_ONEOF(exited, ChildExited) {
        if (exited.status == 0) return nullptr;
        return kj::str(program, " failed with status ", exited.status);
      }
      KJ_CASE_ONEOF(killed, ChildKilled) {
        return kj::str(program, " was killed by signal ", killed.signal);
      }
      KJ_CASE_ONEOF(working, ChildTimedOut) {
        return nullptr;
      }
      KJ_CASE_ONEOF(notStarted, ChildNotStarted) {
        return kj::mv(notStarted.text);
      }
    }
    KJ_UNREACHABLE;
  });
}

class CommandPower final : public PowerWay {
 public:
  explicit CommandPower(kj::Array<kj::String> argv) : argv(kj::mv(argv)) {}

  kj::Promise<kj::Array<kj::String>> inhibitors(PowerAction, Children&) override { return kj::Array<kj::String>(); }

  kj::Promise<Failure> start(PowerAction action, Children& children) override {
    kj::Vector<kj::String> whole;
    for (auto& part : argv) whole.add(kj::str(part));
    whole.add(kj::str(actionName(action)));
    return startProgram(children, whole.releaseAsArray());
  }

 private:
  kj::Array<kj::String> argv;
};

kj::StringPtr systemctlVerb(PowerAction action) {
  switch (action) {
    case PowerAction::SHUTDOWN:
      return "poweroff"_kj;
    case PowerAction::RESTART:
      return "reboot"_kj;
    case PowerAction::SUSPEND:
      return "suspend"_kj;
  }
  KJ_UNREACHABLE;
}

class SystemdPower final : public PowerWay {
 public:
  SystemdPower(kj::Array<kj::String> probeCommand, kj::Maybe<Identity> probeIdentity)
      : probeCommand(kj::mv(probeCommand)), probeIdentity(probeIdentity) {}

  kj::Promise<kj::Array<kj::String>> inhibitors(PowerAction action, Children& children) override {
    // The bus has a time-out of its own, of 1 s.
    return children.run(probeChild(probeCommand, "inhibitors", probeIdentity, 2 * kj::SECONDS))
        .then([action](ChildEnd end) {
          KJ_IF_MAYBE (exited, end.tryGet<ChildExited>()) {
            if (exited->status == 0) return parseInhibitors(exited->output, action);
          }
          logWarning("inhibitors-unknown", "logind does not say who holds this off; going on as if nobody did");
          return kj::Array<kj::String>();
        });
  }

  kj::Promise<Failure> start(PowerAction action, Children& children) override {
    // Inhibitors were looked at, or are to be ignored: systemctl without a terminal would not ask either, but says so
    // here.
    kj::StringPtr path = access("/usr/bin/systemctl", X_OK) == 0 ? "/usr/bin/systemctl"_kj : "/bin/systemctl"_kj;
    return startProgram(children, kj::arr(kj::str(path), kj::str("--no-block"), kj::str("--check-inhibitors=no"),
                                          kj::str(systemctlVerb(action))));
  }

 private:
  kj::Array<kj::String> probeCommand;
  kj::Maybe<Identity> probeIdentity;
};

}  // namespace

kj::Own<PowerWay> newCommandPower(kj::Array<kj::String> argv) {
  KJ_REQUIRE(argv.size() > 0 && argv[0].startsWith("/"), "a power command without an absolute path");
  return kj::heap<CommandPower>(kj::mv(argv));
}

kj::Own<PowerWay> newSystemdPower(kj::Array<kj::String> probeCommand, kj::Maybe<Identity> probeIdentity) {
  return kj::heap<SystemdPower>(kj::mv(probeCommand), probeIdentity);
}

}  // namespace postern::guest
