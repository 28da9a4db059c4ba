// postern audit tail: the newest lines, as posternd gives them out.

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

}  // namespace postern::cli
