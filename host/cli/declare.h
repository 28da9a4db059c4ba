#pragma once
// How postern's commands are told to CLI11: what the files declare-*.cpp share. Only they and arguments.cpp know CLI11.

#include <kj/string.h>

#include <CLI/CLI.hpp>
#include <concepts>
#include <memory>
#include <utility>

#include "host/cli/arguments.h"

namespace postern::cli {

// What parsing found.
struct Declared {
  kj::Maybe<Command> command;
  kj::Maybe<kj::String> problem;  // the words fit, and together they make no sense
};

void declareMonitoring(CLI::App& app, Declared& declared);  // status, ping, info, doctor, events
void declareRegistry(CLI::App& app, Declared& declared);    // enroll, vm ...
void declarePower(CLI::App& app, Declared& declared);       // shutdown, restart, suspend
void declarePolicy(CLI::App& app, Declared& declared);      // policy ..., audit ...
void declareFiles(CLI::App& app, Declared& declared);       // cp, ls, stat, mkdir, rm
void declareServices(CLI::App& app, Declared& declared,
                     kj::StringPtr currentFolder);  // connect, forward, services, channel ...

template <typename T, typename... Commands>
concept IsOneOf = (std::same_as<T, Commands> || ...);
template <typename T>
concept IsMonitorCommand = IsOneOf<T, StatusArguments, PingArguments, InfoArguments, EventsArguments, DoctorArguments>;
template <typename T>
concept IsFileCommand =
    IsOneOf<T, CopyArguments, ListFilesArguments, FileStatusArguments, MakeFolderArguments, RemoveFilesArguments>;
template <typename T>
concept IsServiceCommand = IsOneOf<T, ConnectArguments, ForwardArguments, ServicesArguments, ChannelListArguments,
                                   ChannelStatsArguments, ChannelBlockArguments, ChannelCloseArguments>;

// A command whose arguments are a T: `declare` adds the options that fill it in, `check` says what makes no sense.
template <typename T, typename Declare, typename Check>
CLI::App* addCommand(CLI::App& parent, const char* name, const char* help, Declared& declared, Declare&& declare,
                     Check&& check, T initial = T()) {
  auto* sub = parent.add_subcommand(name, help);
  auto arguments = std::make_shared<T>(kj::mv(initial));  // CLI11 copies its callbacks
  declare(*sub, *arguments);
  sub->callback([arguments, &declared, check]() {
    declared.problem = check(*arguments);
    if constexpr (IsMonitorCommand<T>) {
      declared.command = Command(MonitorCommand(kj::mv(*arguments)));
    } else if constexpr (IsFileCommand<T>) {
      declared.command = Command(FileCommand(kj::mv(*arguments)));
    } else if constexpr (IsServiceCommand<T>) {
      declared.command = Command(ServiceCommand(kj::mv(*arguments)));
    } else {
      declared.command = Command(kj::mv(*arguments));
    }
  });
  return sub;
}
template <typename T, typename Declare>
CLI::App* addCommand(CLI::App& parent, const char* name, const char* help, Declared& declared, Declare&& declare) {
  return addCommand<T>(parent, name, help, declared, kj::fwd<Declare>(declare),
                       [](const T&) -> kj::Maybe<kj::String> { return nullptr; });
}

// Some words mean something to CLI11 wherever they stand ("[a]" is a list, "++" an end), and may be a file's name; and
// it takes options even after "--", once no value lacks. Such a word is protected before CLI11 sees it, and every value
// that comes out of CLI11 is taken through valueOf(). "--" itself goes.
std::vector<std::string> protectedWords(kj::ArrayPtr<const kj::StringPtr> words);
kj::String valueOf(const std::string& protectedText);

// Checks for CLI11: empty, or what is wrong.
std::string notVmName(const std::string& text);
std::string notNumber(const std::string& text, uint64_t max);

CLI::Option* addText(CLI::App& app, const char* name, kj::String& target, const char* help);
CLI::Option* addText(CLI::App& app, const char* name, kj::Maybe<kj::String>& target, const char* help);
// Several: as several words, or separated by commas.
CLI::Option* addNames(CLI::App& app, const char* name, Names& target, const char* help);
CLI::Option* addDuration(CLI::App& app, const char* name, const char* help, std::function<void(kj::Duration)> target);
// A whole number of at most `max`; its default is shown.
template <typename T>
CLI::Option* addNumber(CLI::App& app, const char* name, T& target, T max, const char* help) {
  return app.add_option(name, target, help)
      ->capture_default_str()
      ->check(CLI::Validator([max](const std::string& text) { return notNumber(text, max); }, "", "number"))
      ->type_name("N");
}
// A VM's name, checked: it becomes part of file names and of lines on the terminal.
CLI::Option* addVm(CLI::App& app, kj::String& target);
CLI::Option* addVms(CLI::App& app, Names& target);

}  // namespace postern::cli
