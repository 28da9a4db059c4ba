#include "host/cli/arguments.h"

#include <algorithm>

#include "host/cli/declare.h"
#include "protocol/policy/wording.h"
#include "transport/printable.h"

namespace postern::cli {

namespace {

constexpr auto FOOTER =
    "Exit status: 0 done; 1 failed; 2 usage, also an unknown VM; 3 denied by policy; 4 VM not connected; 5 timed out;\n"
    "6 the other end refused or cannot do it; 130 interrupted. Of several VMs or paths the worst: 3, 4, 5, 6, 1.\n"
    "`postern COMMAND --help` tells more. A duration S is seconds, or 500ms, 30s, 15m, 2h, 7d.";

void declareOptions(CLI::App& app, Options& options) {
  // Options of the whole program may stand anywhere on the line.
  app.fallthrough();
  app.require_subcommand(1);
  app.footer(FOOTER);
  app.set_help_flag("-h,--help", "Prints this text, or a command's");
  app.set_version_flag("-V,--version", "postern " POSTERN_VERSION);
  addText(app, "--root", options.root, "Every path of Postern lies below DIR")->type_name("DIR");
  app.add_flag("--json", options.json,
               "One JSON document on stdout for results and errors (lines of them: events, --watch)");
  addDuration(app, "--timeout",
              "How long to wait for an answer (default: 10 s; power commands: 120 s and the delay; cp: for ever)",
              [&options](kj::Duration value) { options.timeout = value; });
}

bool asksForJson(kj::ArrayPtr<const kj::StringPtr> words) {
  for (auto word : words) {
    if (word == "--json"_kj) return true;
  }
  return false;
}

// The innermost command that the line names.
CLI::App& innermost(CLI::App& app) {
  auto used = app.get_subcommands();
  return used.empty() ? app : innermost(*used[0]);
}

kj::Vector<kj::String> subcommandNames(CLI::App& app) {
  kj::Vector<kj::String> names;
  for (auto* sub : app.get_subcommands([](CLI::App*) { return true; })) names.add(kj::str(sub->get_name().c_str()));
  return names;
}

void addOptionNames(const CLI::App& app, kj::Vector<kj::String>& names) {
  for (auto* option : app.get_options()) {
    for (auto& name : option->get_lnames()) names.add(kj::str("--", name.c_str()));
  }
}

kj::String suggest(kj::StringPtr word, kj::ArrayPtr<const kj::String> known) {
  auto pointers = KJ_MAP(name, known) {
    return kj::StringPtr(name);
  };
  return policy::didYouMean(word, pointers);
}

kj::String quoted(kj::StringPtr word) {
  return kj::str('\'', printable(word, 60), '\'');
}

// What to say of a word that nothing wanted.
kj::String unwanted(CLI::App& app, const std::string& word) {
  auto& command = innermost(app);
  auto text = valueOf(word);
  if (text.startsWith("-")) {
    kj::Vector<kj::String> names;
    addOptionNames(command, names);
    if (&command != &app) addOptionNames(app, names);
    auto name = text.findFirst('=').map([&](size_t end) { return kj::heapString(text.slice(0, end)); });
    return kj::str("unknown option ", quoted(text),
                   suggest(name.map([](auto& n) { return n.asPtr(); }).orDefault(text), names));
  }
  auto names = subcommandNames(command);
  if (names.empty()) return kj::str("unexpected word ", quoted(text));
  return kj::str("unknown command ", quoted(text), suggest(text, names));
}

kj::String commandLine(const CLI::App& command) {
  return command.get_parent() == nullptr ? kj::str("postern")
                                         : kj::str(commandLine(*command.get_parent()), ' ', command.get_name().c_str());
}

kj::String helpOf(const CLI::App& command) {
  auto* parent = command.get_parent();
  return kj::str(command.help(parent == nullptr ? "" : commandLine(*parent).cStr()).c_str());
}

// One line of CLI11's that may have come with several.
kj::String oneLine(const std::string& text) {
  return printable(kj::StringPtr(text.c_str()).asArray(), 300);
}

kj::String absolutePath(kj::StringPtr path, kj::StringPtr currentFolder) {
  auto whole = path.startsWith("/") ? kj::str(path) : kj::str(currentFolder, '/', path);
  size_t size = whole.size();
  while (size > 0 && whole[size - 1] == '/') --size;
  return kj::heapString(whole.slice(0, size));
}

}  // namespace

kj::OneOf<Arguments, HelpText, UsageError> parseArguments(kj::ArrayPtr<const kj::StringPtr> words,
                                                          kj::StringPtr currentFolder) {
  CLI::App app("Talks with virtual machines through Postern, the side door between a host and its guests.", "postern");
  Options options;
  Declared declared;
  declareOptions(app, options);
  declareMonitoring(app, declared);
  declareRegistry(app, declared);
  declarePower(app, declared);
  declarePolicy(app, declared);
  declareServices(app, declared, currentFolder);
  declareFiles(app, declared);

  auto usage = [&](kj::String text) { return UsageError{kj::mv(text), asksForJson(words)}; };
  auto seeHelp = [&]() { return kj::str(" (see ", commandLine(innermost(app)), " --help)"); };
  // CLI11 takes words off the end.
  auto reversed = protectedWords(words);
  std::reverse(reversed.begin(), reversed.end());
  try {
    app.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    return HelpText{helpOf(innermost(app))};
  } catch (const CLI::CallForVersion& version) {
    return HelpText{kj::str(version.what(), '\n')};
  } catch (const CLI::ParseError& error) {
    auto left = app.remaining(/* recurse */ true);
    if (!left.empty()) return usage(kj::str(unwanted(app, left[0]), seeHelp()));
    if (!subcommandNames(innermost(app)).empty()) return usage(kj::str("no command given", seeHelp()));
    return usage(kj::str(oneLine(error.what()), seeHelp()));
  }
  options.root = options.root.size() == 0 ? kj::String() : absolutePath(options.root, currentFolder);
  KJ_IF_MAYBE (problem, declared.problem) {
    return usage(kj::str(*problem, seeHelp()));
  }
  KJ_IF_MAYBE (command, declared.command) {
    return Arguments{kj::mv(options), kj::mv(*command)};
  }
  return usage(kj::str("no command given", seeHelp()));
}

}  // namespace postern::cli
