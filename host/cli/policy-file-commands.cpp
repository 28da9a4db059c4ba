// postern policy check, test, diff: on files, by the same engine that decides in posternd.

#include <unistd.h>

#include "host/cli/commands.h"
#include "host/cli/failure-text.h"
#include "host/cli/policy-files.h"
#include "protocol/policy/diff.h"
#include "protocol/policy/expectation.h"

namespace postern::cli {

namespace {

kj::Vector<PolicyFile> chosenFiles(Invocation& run, const PolicyCheckArguments& arguments) {
  kj::Vector<PolicyFile> files;
  for (auto& path : arguments.files) readPolicy(path, files);
  for (auto& path : arguments.folders) readPolicy(path, files);
  if (!arguments.files.empty() || !arguments.folders.empty()) return files;
  // What posternd reads; either folder may be missing.
  for (auto* folder : {&run.paths.policyFolder, &run.paths.grantsFolder}) {
    if (access(folder->cStr(), F_OK) == 0) readPolicy(*folder, files);
  }
  return files;
}

void writeProblems(JsonWriter& json, kj::ArrayPtr<const policy::Problem> problems) {
  json.beginArray();
  for (auto& problem : problems) {
    json.beginObject().field("file", problem.file).field("line", problem.line).field("text", problem.text).endObject();
  }
  json.endArray();
}

// Every error on a line of its own.
ExitStatus reportProblems(Invocation& run, kj::ArrayPtr<const policy::Problem> problems) {
  if (!run.options.json) {
    for (auto& problem : problems) run.world.error(kj::str("postern: ", shown(problem.toString(), 1000), '\n'));
    return ExitStatus::FAILED;
  }
  JsonWriter json;
  auto text = kj::str(problems.size(), problems.size() == 1 ? " error in the policy" : " errors in the policy");
  json.beginObject().field("ok", false).key("error");
  writeError(json, client::failure(client::FailureKind::FAILED, kj::mv(text)));
  json.key("problems");
  writeProblems(json, problems);
  json.field("exitStatus", static_cast<int>(ExitStatus::FAILED)).endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::FAILED;
}

kj::String counted(size_t count, kj::StringPtr what) {
  return kj::str(count, ' ', what, count == 1 ? "" : "s");
}

kj::Own<const policy::Policy> sound(Invocation& run, kj::StringPtr path, kj::Maybe<ExitStatus>& failed) {
  kj::Vector<PolicyFile> files;
  readPolicy(path, files);
  auto result = loadPolicy(files);
  KJ_IF_MAYBE (problems, result.tryGet<kj::Array<policy::Problem>>()) {
    failed = reportProblems(run, *problems);
    return policy::Policy::denyAll(policy::Side::HOST);
  }
  return kj::mv(result.get<policy::Loaded>().policy);
}

}  // namespace

ExitStatus runPolicyCheck(Invocation& run, const PolicyCheckArguments& arguments) {
  auto files = chosenFiles(run, arguments);
  auto result = loadPolicy(files);
  KJ_IF_MAYBE (problems, result.tryGet<kj::Array<policy::Problem>>()) {
    return reportProblems(run, *problems);
  }
  auto& loaded = result.get<policy::Loaded>();
  auto& document = loaded.policy->document();
  auto hash = policy::toHex(loaded.policy->hash());
  if (!run.options.json) {
    for (auto& warning : loaded.warnings) {
      run.world.error(kj::str("postern: warning: ", shown(warning.toString(), 1000), '\n'));
    }
    run.world.out(kj::str("sound: ", counted(files.size(), "file"), ", ", counted(document.rules.size(), "rule"), ", ",
                          counted(document.tests.size(), "test"), " passed\nhash ", hash, '\n'));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).field("files", files.size()).field("rules", document.rules.size());
  json.field("tests", document.tests.size()).field("hash", hash).key("warnings");
  writeProblems(json, loaded.warnings);
  json.endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

ExitStatus runPolicyTest(Invocation& run, const PolicyTestArguments& arguments) {
  auto files = chosenFiles(run, arguments.which);
  auto result = loadPolicy(files);
  // A test that fails is an error of the policy, and named as one.
  KJ_IF_MAYBE (problems, result.tryGet<kj::Array<policy::Problem>>()) {
    return reportProblems(run, *problems);
  }
  auto results = policy::runTests(*result.get<policy::Loaded>().policy);
  if (!run.options.json) {
    for (auto& test : results) run.world.out(kj::str("ok  ", shown(kj::str(test.test->place), 300), '\n'));
    run.world.out(kj::str(counted(results.size(), "test"), " passed\n"));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).field("tests", results.size()).endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

ExitStatus runPolicyDiff(Invocation& run, const PolicyDiffArguments& arguments) {
  kj::Maybe<ExitStatus> failed;
  auto before = sound(run, arguments.before, failed);
  KJ_IF_MAYBE (status, failed) {
    return *status;
  }
  auto after = sound(run, arguments.after, failed);
  KJ_IF_MAYBE (status, failed) {
    return *status;
  }
  auto changes = policy::changes(*before, *after);
  if (!run.options.json) {
    for (auto& change : changes) run.world.out(kj::str(shown(change.toString(), 300), '\n'));
    if (changes.empty()) run.world.out("both say the same\n");
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).key("changes").beginArray();
  for (auto& change : changes) json.value(change.toString());
  json.endArray().endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

}  // namespace postern::cli
