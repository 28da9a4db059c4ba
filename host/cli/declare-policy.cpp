#include "host/cli/declare.h"

namespace postern::cli {

void declarePolicy(CLI::App& app, Declared& declared) {
  auto& policy = *app.add_subcommand("policy", "Looks at policy, and has posternd read it again");
  policy.require_subcommand(1);
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
                                   sub.add_option("-n,--lines", arguments.lines, "How many")->capture_default_str();
                                 });
}

}  // namespace postern::cli
