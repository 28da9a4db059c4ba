#include "host/cli/declare.h"

namespace postern::cli {

namespace {

using Action = schema::PowerRequest::Action;

constexpr size_t MAX_MESSAGE_BYTES = 512;
constexpr auto MAX_DELAY = 86'400 * kj::SECONDS;

kj::Maybe<kj::String> check(const PowerArguments& arguments) {
  if (arguments.message.size() > MAX_MESSAGE_BYTES) return kj::str("--message has at most 512 bytes");
  if (arguments.delay > MAX_DELAY) return kj::str("--delay is at most 24h");
  return nullptr;
}

void declareAction(CLI::App& app, Declared& declared, const char* name, const char* help, Action action) {
  PowerArguments initial;
  initial.action = action;
  addCommand<PowerArguments>(
      app, name, help, declared,
      [action](CLI::App& sub, PowerArguments& arguments) {
        addVms(sub, arguments.vms)->required();
        sub.add_flag("--wait", arguments.wait,
                     action == Action::RESTART ? "Returns when the guest has come back with a new boot id"
                                               : "Returns when the guest has said goodbye and its link is silent");
        addDuration(sub, "--delay", "How long the guest waits before it begins (default: 0)",
                    [&arguments](kj::Duration value) { arguments.delay = value; });
        addText(sub, "--message", arguments.message, "Said to the guest's users")->type_name("TEXT");
        if (action != Action::SUSPEND) {
          addDuration(sub, "--force-after", "After S, if the guest has not done it, QEMU does (implies --wait)",
                      [&arguments](kj::Duration value) {
                        arguments.forceAfter = value;
                        arguments.wait = true;
                      });
        }
        sub.add_flag("--ignore-inhibitors", arguments.ignoreInhibitors,
                     "Even if a program of the guest asks for it not to be done now");
      },
      check, kj::mv(initial));
}

}  // namespace

void declarePower(CLI::App& app, Declared& declared) {
  declareAction(app, declared, "shutdown", "Asks guests to shut down, and stays until they do", Action::SHUTDOWN);
  declareAction(app, declared, "restart", "Asks guests to restart, and stays until they do", Action::RESTART);
  declareAction(app, declared, "suspend", "Asks guests to suspend, and stays until they do", Action::SUSPEND);
}

}  // namespace postern::cli
