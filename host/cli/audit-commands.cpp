// postern audit tail: the newest lines, as posternd gives them out; postern audit verify: without it, on the files.

#include "host/audit/audit-verify.h"
#include "host/cli/commands.h"
#include "host/cli/failure-text.h"

namespace postern::cli {

namespace {

// As long as a line of the log may be.
constexpr size_t MAX_LINE_BYTES = size_t(128) << 10;

}  // namespace

ExitStatus runAuditTail(Invocation& run, const AuditTailArguments& arguments) {
  auto request = run.control().control().auditRequest();
  request.setLast(arguments.lines);
  auto response = run.await(request.send(), "posternd");
  run.check(response, "");
  if (!run.options.json) {
    for (auto line : response.getLines()) run.world.out(kj::str(shown(line, MAX_LINE_BYTES), '\n'));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).key("lines").beginArray();
  for (auto line : response.getLines()) json.value(line);
  json.endArray().endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

ExitStatus runAuditVerify(Invocation& run, const AuditVerifyArguments& arguments) {
  kj::Vector<kj::String> files;
  for (auto& file : arguments.files) files.add(kj::str(file));
  if (files.empty()) files = host::auditFiles(run.paths.auditLog);
  if (files.empty()) {
    fail(client::FailureKind::FAILED, kj::str("there is no audit log at ", run.paths.auditLog));
  }
  kj::Maybe<kj::StringPtr> head;
  if (arguments.head.size() > 0) head = arguments.head.asPtr();
  auto verified = host::verifyAudit(files, head);
  KJ_IF_MAYBE (problem, verified.tryGet<host::AuditProblem>()) {
    fail(client::FailureKind::FAILED, kj::str("audit log: ", problem->text));
  }
  auto& summary = verified.get<host::AuditSummary>();
  if (!run.options.json) {
    run.world.out(kj::str("whole: ", summary.lines, " lines, ", summary.firstSequence, " to ", summary.lastSequence,
                          ", in ", files.size(), files.size() == 1 ? " file\n" : " files\n", "head ", summary.head,
                          "; note it elsewhere: only it shows that lines at the end are gone\n"));
    return ExitStatus::DONE;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).field("files", files.size()).field("lines", summary.lines);
  json.field("firstSequence", summary.firstSequence).field("lastSequence", summary.lastSequence);
  json.field("head", summary.head).endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return ExitStatus::DONE;
}

}  // namespace postern::cli
