#include "host/cli/declare.h"

namespace postern::cli {

namespace {

constexpr uint32_t MAX_LINES = 1'000'000;

void addFiles(CLI::App& sub, PolicyCheckArguments& arguments) {
  addNames(sub, "FILE", arguments.files, "Policy files (default: the host's policy.d and grants.d)")->type_name("");
  addNames(sub, "--folder", arguments.folders, "All *.toml of a folder")->type_name("DIR");
}

kj::Maybe<kj::String> checkFiles(const PolicyCheckArguments& arguments) {
  if (!arguments.files.empty() && !arguments.folders.empty()) return kj::str("name files or --folder, not both");
  return nullptr;
}

}  // namespace

void declarePolicy(CLI::App& app, Declared& declared) {
  auto& policy = *app.add_subcommand("policy", "Looks at policy, and has posternd read it again");
  policy.require_subcommand(1);
  addCommand<PolicyCheckArguments>(
      policy, "check", "Reads policy files as posternd would, runs their tests, and says what is wrong", declared,
      [](CLI::App& sub, PolicyCheckArguments& arguments) { addFiles(sub, arguments); }, checkFiles);
  addCommand<PolicyTestArguments>(
      policy, "test", "Runs the tests that a policy carries", declared,
      [](CLI::App& sub, PolicyTestArguments& arguments) { addFiles(sub, arguments.which); },
      [](const PolicyTestArguments& arguments) { return checkFiles(arguments.which); });
  addCommand<PolicyDiffArguments>(
      policy, "diff", "Says what changes from one policy to another; exit status 0 either way", declared,
      [](CLI::App& sub, PolicyDiffArguments& arguments) {
        addText(sub, "OLD", arguments.before, "A file or a folder")->required()->type_name("");
        addText(sub, "NEW", arguments.after, "A file or a folder")->required()->type_name("");
      });
  addCommand<PolicyExplainArguments>(
      policy, "explain", "Says what posternd would decide, by which rule, and what would change it", declared,
      [](CLI::App& sub, PolicyExplainArguments& arguments) {
        addText(sub, "--from", arguments.from, "Who asks: user:NAME, or a VM (default: you)")->type_name("WHO");
        addText(sub, "--to", arguments.to, "Of whom: a VM, or host")->required()->type_name("WHOM");
        addText(sub, "--call", arguments.call, "What, such as power.shutdown")->required()->type_name("CALL");
        addText(sub, "--path", arguments.path, "Of file.* calls")->type_name("PATH");
      });
  addCommand<PolicyReloadArguments>(policy, "reload",
                                    "posternd reads its policy again, and keeps the old one on an error", declared,
                                    [](CLI::App&, PolicyReloadArguments&) {});

  auto& audit = *app.add_subcommand("audit", "Looks at the audit log");
  audit.require_subcommand(1);
  addCommand<AuditTailArguments>(audit, "tail", "Prints its newest lines", declared,
                                 [](CLI::App& sub, AuditTailArguments& arguments) {
                                   addNumber(sub, "-n,--lines", arguments.lines, MAX_LINES, "How many");
                                 });
  addCommand<AuditVerifyArguments>(
      audit, "verify", "Proves that no line was altered, dropped or moved; reads the files itself", declared,
      [](CLI::App& sub, AuditVerifyArguments& arguments) {
        addNames(sub, "FILE", arguments.files, "The log's files, the oldest first (default: this host's)")
            ->type_name("");
        addText(sub, "--head", arguments.head, "A head that was noted earlier: the log must still hold its line")
            ->type_name("HASH");
      });
}

}  // namespace postern::cli
