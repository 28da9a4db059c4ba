#include <kj/debug.h>

#include "host/cli/channel-text.h"
#include "host/cli/declare.h"
#include "host/cli/failure-text.h"
#include "protocol/policy/call.h"

namespace postern::cli {

namespace {

using Mistake = std::shared_ptr<kj::String>;  // of a word; empty: none. CLI11 copies its callbacks

constexpr auto CONNECT_FOOTER =
    "Standard input goes to the service as it comes, what the service sends to standard output. The end of the one "
    "ends "
    "that\n"
    "direction only. So ssh needs no network:  ssh -o ProxyCommand='postern connect %h ssh' web1\n"
    "Exit status: 1 also if the connection was reset; 6: the guest does not export the service, or its target does not "
    "answer;\n"
    "else as of every command (postern --help).";

constexpr auto FORWARD_FOOTER =
    "LOCAL is PORT (of 127.0.0.1), tcp:ADDRESS:PORT or unix:PATH; port 0 is any that is free. Whoever can connect to "
    "it "
    "uses the\n"
    "service as you: a Unix socket is for you alone, a TCP port for every user of this machine, or beyond. Goes on "
    "until "
    "Ctrl-C;\n"
    "a connection that fails is a line on stderr.";

std::string notService(const std::string& text) {
  auto call = kj::str("service.", valueOf(text));
  auto family = policy::familyOf(call);
  if (family.map([](auto f) { return f == policy::CallFamily::SERVICE; }).orDefault(false)) return {};
  return kj::str("'", shown(valueOf(text), 70), "' is no service's name: it has 1 to 64 letters, digits, '-' and '_'")
      .cStr();
}

void addService(CLI::App& app, kj::String& target) {
  addText(app, "SERVICE", target, "Name of the service, as the guest exports it")
      ->required()
      ->check(CLI::Validator(notService, "", "service"))
      ->type_name("");
}

std::string notChannelId(const std::string& text) {
  if (parseChannelId(valueOf(text)) != nullptr) return {};
  return kj::str("'", shown(valueOf(text), 40), "' is no channel: write its ID as `postern channel list` shows it")
      .cStr();
}

// PORT, or what parseLocalAddress() reads, with a Unix path that may be relative.
kj::String wholeAddress(kj::StringPtr text, kj::StringPtr currentFolder) {
  bool digits = text.size() > 0;
  for (char c : text) digits = digits && c >= '0' && c <= '9';
  if (digits) return kj::str("tcp:127.0.0.1:", text);
  if (text.startsWith("unix:") && text.size() > 5 && text[5] != '/' && text[5] != '@') {
    return kj::str("unix:", currentFolder, '/', text.slice(5));
  }
  return kj::str(text);
}

void addLocal(CLI::App& app, LocalAddress& target, const Mistake& mistake, kj::StringPtr currentFolder) {
  app.add_option_function<std::string>(
         "LOCAL",
         [&target, mistake, folder = std::string(currentFolder.cStr())](const std::string& word) {
           auto parsed = parseLocalAddress(wholeAddress(valueOf(word), folder.c_str()));
           KJ_SWITCH_ONEOF(parsed) {
             KJ_CASE_ONEOF(address, LocalAddress) {
               target = kj::mv(address);
             }
             KJ_CASE_ONEOF(error, LocalAddressError) {
               *mistake = kj::str("LOCAL '", shown(valueOf(word), 120), "': ", error.text);
             }
           }
         },
         "Where it is listened on: PORT, tcp:ADDRESS:PORT or unix:PATH")
      ->required()
      ->type_name("");
}

void declareChannel(CLI::App& app, Declared& declared) {
  auto& channel = *app.add_subcommand("channel", "Looks at connections to services, and ends them");
  channel.require_subcommand(1);
  addCommand<ChannelListArguments>(
      channel, "list", "Lists the live channels", declared,
      [](CLI::App& sub, ChannelListArguments& arguments) { addVm(sub, arguments.vm)->required(false); });
  addCommand<ChannelStatsArguments>(channel, "stats", "Shows the counters of VMs' ports and of rules", declared,
                                    [](CLI::App& sub, ChannelStatsArguments& arguments) {
                                      addVm(sub, arguments.vm)->required(false);
                                      sub.add_flag("--watch", arguments.watch, "Goes on, and shows what changes");
                                    });
  addCommand<ChannelBlockArguments>(
      channel, "block", "Blocks a VM's port, whatever the policy says, and cuts all that passes it", declared,
      [](CLI::App& sub, ChannelBlockArguments& arguments) { addVm(sub, arguments.vm); });
  addCommand<ChannelBlockArguments>(channel, "unblock", "Ends that; a port that the policy blocks stays blocked",
                                    declared, [](CLI::App& sub, ChannelBlockArguments& arguments) {
                                      arguments.block = false;
                                      addVm(sub, arguments.vm);
                                    });
  addCommand<ChannelCloseArguments>(
      channel, "close", "Resets one channel", declared, [](CLI::App& sub, ChannelCloseArguments& arguments) {
        sub.add_option_function<std::string>(
               "ID",
               [&arguments](const std::string& id) { arguments.id = KJ_ASSERT_NONNULL(parseChannelId(valueOf(id))); },
               "As `postern channel list` shows it")
            ->required()
            ->check(CLI::Validator(notChannelId, "", "id"))
            ->type_name("");
      });
}

}  // namespace

void declareServices(CLI::App& app, Declared& declared, kj::StringPtr currentFolder) {
  addCommand<ConnectArguments>(app, "connect", "Connects standard input and output to a service of a VM", declared,
                               [](CLI::App& sub, ConnectArguments& arguments) {
                                 addVm(sub, arguments.vm);
                                 addService(sub, arguments.service);
                               })
      ->footer(CONNECT_FOOTER);
  auto mistake = std::make_shared<kj::String>();
  addCommand<ForwardArguments>(
      app, "forward", "Listens here, and connects whoever comes to a service of a VM", declared,
      [&](CLI::App& sub, ForwardArguments& arguments) {
        addVm(sub, arguments.vm);
        addLocal(sub, arguments.local, mistake, currentFolder);
        addService(sub, arguments.service);
      },
      [mistake](const ForwardArguments&) -> kj::Maybe<kj::String> {
        if (mistake->size() > 0) return kj::str(*mistake);
        return nullptr;
      })
      ->footer(FORWARD_FOOTER);
  addCommand<ServicesArguments>(app, "services", "Lists the services of a VM that you may connect to", declared,
                                [](CLI::App& sub, ServicesArguments& arguments) { addVm(sub, arguments.vm); });
  declareChannel(app, declared);
}

}  // namespace postern::cli
