// postern mkdir and postern rm: what the guest's own process does alone.

#include "host/cli/commands.h"
#include "host/cli/file-report.h"

namespace postern::cli {

namespace {

using Answer = kj::Maybe<kj::OneOf<transfer::Problem, client::Failure>>;

// A tree takes the time that it takes.
constexpr auto REMOVE_TREE_TIMEOUT = 3600 * kj::SECONDS;

enum class Absent { IS_A_FAILURE, IS_FINE };

void reportAnswer(FileReport& report, const FilePath& path, Answer answer, Absent absent) {
  KJ_IF_MAYBE (wrong, answer) {
    KJ_SWITCH_ONEOF(*wrong) {
      KJ_CASE_ONEOF(problem, transfer::Problem) {
        if (absent == Absent::IS_FINE && problem.kind == transfer::ProblemKind::NO_SUCH_FILE) return;
        report.failed(path.written(), problem);
      }
      KJ_CASE_ONEOF(failure, client::Failure) {
        report.failed(Invocation::about(path.vm, kj::mv(failure)));
      }
    }
  }
}

ExitStatus finish(Invocation& run, FileReport& report) {
  auto status = report.finish();
  if (!run.options.json) return status;
  JsonWriter json;
  json.beginObject().field("ok", status == ExitStatus::DONE);
  report.writeFields(json);
  json.endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return status;
}

void carryOut(Invocation& run, FileReport& report, const FilePath& path, const client::FileOrder& order,
              kj::Duration limit, Absent absent) {
  try {
    auto vm = run.openVm(path.vm, {client::policyName(order.call)}, order.path);
    reportAnswer(report, path, run.await(client::carryOut(*vm, order), path.vm, limit), absent);
  } catch (const CommandFailure& failed) {
    if (failed.failure.kind == client::FailureKind::INTERRUPTED) throw;
    report.failed(failed.failure);
  }
}

}  // namespace

ExitStatus runMakeFolder(Invocation& run, const MakeFolderArguments& arguments) {
  run.control();
  FileReport report(run);
  for (auto& path : arguments.paths) {
    client::FileOrder order{client::FileCall::MKDIR, kj::str(path.path)};
    order.makeParents = arguments.parents;
    carryOut(run, report, path, order, run.timeout(), Absent::IS_A_FAILURE);
  }
  return finish(run, report);
}

ExitStatus runRemoveFiles(Invocation& run, const RemoveFilesArguments& arguments) {
  run.control();
  FileReport report(run);
  auto limit = run.options.timeout.orDefault(arguments.recursive ? REMOVE_TREE_TIMEOUT : DEFAULT_TIMEOUT);
  auto absent = arguments.force ? Absent::IS_FINE : Absent::IS_A_FAILURE;
  for (auto& path : arguments.paths) {
    if (path.path == "/"_kj) {
      report.failed(path.written(), transfer::problem(transfer::ProblemKind::DENIED,
                                                      kj::str("the root of a guest is not removed this way")));
      continue;
    }
    if (path.slash && !arguments.recursive) {
      report.failed(path.written(),
                    transfer::problem(transfer::ProblemKind::IS_DIRECTORY, kj::str("is a directory (use -r)")));
      continue;
    }
    client::FileOrder order{client::FileCall::REMOVE, kj::str(path.path)};
    order.recursive = arguments.recursive;
    carryOut(run, report, path, order, limit, absent);
  }
  return finish(run, report);
}

}  // namespace postern::cli
