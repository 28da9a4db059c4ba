// postern policy explain, reload: what posternd says of its policy.

#include "host/cli/commands.h"
#include "host/cli/failure-text.h"

namespace postern::cli {

ExitStatus runPolicyExplain(Invocation& run, const PolicyExplainArguments& arguments) {
  auto request = run.control().control().explainPolicyRequest();
  auto query = request.initQuery();
  query.setFrom(arguments.from);
  query.setTo(arguments.to);
  query.setCall(arguments.call);
  query.setPath(arguments.path);
  auto response = run.await(request.send(), "posternd");
  run.check(response, "");
  // An explanation of a denial is not a denial: the question was answered.
  if (!run.options.json) {
    run.world.out(kj::str(response.getAllowed() ? "allowed\n" : "denied\n", shownLines(response.getText(), "  ")));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).field("allowed", response.getAllowed());
  json.field("text", response.getText()).endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

ExitStatus runPolicyReload(Invocation& run) {
  auto response = run.await(run.control().control().reloadPolicyRequest().send(), "posternd");
  run.check(response, "");
  if (!run.options.json) {
    run.world.out(kj::str("policy ", shown(response.getHash(), 64), " is in force\n"));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).field("hash", response.getHash()).endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

}  // namespace postern::cli
