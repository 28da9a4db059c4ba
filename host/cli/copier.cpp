#include "host/cli/copier.h"

#include "host/cli/quantity.h"
#include "host/cli/transfer-wait.h"
#include "protocol/transfer/limits.h"

namespace postern::cli {

namespace {

ProgressLine::Shown shownOn(Invocation& run, const CopyArguments& arguments) {
  bool shown =
      run.world.outIsTerminal() && run.world.errorIsTerminal() && !run.options.json && !arguments.destination.stream;
  return shown ? ProgressLine::Shown::YES : ProgressLine::Shown::NO;
}

bool isLarge(const client::TransferProgress& progress) {
  return progress.counted && progress.totals.bytes >= transfer::DELTA_MIN_BYTES;
}

}  // namespace

Copier::Copier(Invocation& run, const CopyArguments& arguments, FileReport& report)
    : run(run),
      arguments(arguments),
      report(report),
      line(run.world, report.letters(), shownOn(run, arguments)),
      began(run.world.now()) {}

client::FileOrder Copier::orderOf(client::FileCall call, const FilePath& path) const {
  client::FileOrder order{call, kj::str(path.path)};
  order.recursive = arguments.recursive;
  order.archive = arguments.archive;
  order.noClobber = arguments.noClobber;
  order.resume = arguments.resume;
  order.verify = arguments.verify;
  order.sparse = arguments.sparse;
  order.rate = arguments.bytesPerSecond;
  return order;
}

void Copier::put(const FilePath& destination, kj::Vector<transfer::SourceTop> tops, Into into) {
  auto order = orderOf(client::FileCall::PUT, destination);
  order.intoDirectory = into == Into::DIRECTORY;
  auto label = tops.size() == 1 ? kj::str(tops[0].shown) : kj::str(destination.vm, ":", destination.path);
  transfer(
      {destination, kj::mv(order), kj::mv(label), UNDO_LIMIT}, [](kj::StringPtr path) { return kj::str(path); },
      [&](client::VmClient& vm, const client::FileOrder& order) {
        return client::FileTransfer::put(vm, order, kj::mv(tops));
      });
}

void Copier::putStream(const FilePath& destination, kj::AutoCloseFd stream) {
  auto name = destination.name();
  transfer(
      {destination, orderOf(client::FileCall::PUT, destination), kj::str("-"), STREAM_UNDO_LIMIT},
      [&](kj::StringPtr) { return destination.written(); },
      [&](client::VmClient& vm, const client::FileOrder& order) {
        return client::FileTransfer::putStream(vm, order, transfer::SourceStream{kj::mv(stream), kj::mv(name)});
      });
}

void Copier::get(const FilePath& source, LocalPlace place) {
  transfer(
      {source, orderOf(client::FileCall::GET, source), source.written(), UNDO_LIMIT},
      [&](kj::StringPtr path) { return pathBelow(source, path); },
      [&](client::VmClient& vm, const client::FileOrder& order) {
        return client::FileTransfer::get(vm, order, kj::mv(place.folder), place.name);
      });
}

void Copier::getStream(const FilePath& source, kj::AutoCloseFd stream) {
  transfer(
      {source, orderOf(client::FileCall::GET, source), source.written(), STREAM_UNDO_LIMIT},
      [&](kj::StringPtr path) { return pathBelow(source, path); },
      [&](client::VmClient& vm, const client::FileOrder& order) {
        return client::FileTransfer::getStream(vm, order, kj::mv(stream));
      });
}

void Copier::transfer(const What& what, Naming naming, Start start) {
  auto& remote = what.remote;
  try {
    auto vm = run.openVm(remote.vm, {transfer::callName(what.order.call)}, what.order.path);
    auto transfer = start(*vm, what.order);
    KJ_DEFER(large = large || isLarge(transfer->progress()));
    auto during = [&]() {
      for (auto& failure : transfer->takeFailures()) {
        line.clear();
        report.entryFailed(naming(failure.path), failure.problem);
      }
      auto progress = transfer->progress();
      // Whoever types what is copied is not disturbed.
      if (progress.counted || what.undo != STREAM_UNDO_LIMIT) line.draw(what.label, progress);
    };
    TransferWait wait{remote.vm, DRAW_INTERVAL, run.options.timeout, what.undo};
    auto outcome = waitForTransfer(run, *transfer, wait, during);
    line.clear();
    settle(remote, what.order, kj::mv(outcome), transfer->progress());
  } catch (const CommandFailure& failed) {
    line.clear();
    if (failed.failure.kind == client::FailureKind::INTERRUPTED) throw;
    this->failed(failed.failure);
  }
}

void Copier::settle(const FilePath& remote, const client::FileOrder& order, client::FileOutcome outcome,
                    const client::TransferProgress& progress) {
  KJ_SWITCH_ONEOF(outcome) {
    KJ_CASE_ONEOF(done, transfer::Summary) {
      report.carriedOut(done, progress.failures);
      // What passes through is counted when it arrives.
      if (passes.size() == 0 || order.call == client::FileCall::PUT) add(done, progress);
      return;
    }
    KJ_CASE_ONEOF(problem, transfer::Problem) {
      bool full = problem.kind == transfer::ProblemKind::NO_SPACE || problem.kind == transfer::ProblemKind::QUOTA;
      if (full && passes.size() > 0 && order.call == client::FileCall::GET) {
        problem.detail = kj::str(problem.detail, " (it passes through ", passes, "; set TMPDIR to another)");
      }
      cutOff = cutOff || full || problem.kind == transfer::ProblemKind::FAILED;
      report.failed(remote.written(), problem);
      return;
    }
    KJ_CASE_ONEOF(failure, client::Failure) {
      failed(explained(remote, order, kj::mv(failure)));
      return;
    }
  }
}

void Copier::failed(const client::Failure& failure) {
  using client::FailureKind;
  cutOff = cutOff || failure.kind == FailureKind::FAILED || failure.kind == FailureKind::NOT_CONNECTED ||
           failure.kind == FailureKind::TIMED_OUT;
  report.failed(failure);
}

// Of a socket that has ended, posternd knows more: whether that was policy, or the VM, it says by not giving another.
client::Failure Copier::explained(const FilePath& remote, const client::FileOrder& order, client::Failure failure) {
  if (failure.kind == client::FailureKind::FAILED) {
    run.openVm(remote.vm, {transfer::callName(order.call)}, order.path);
  }
  return Invocation::about(remote.vm, kj::mv(failure));
}

void Copier::add(const transfer::Summary& more, const client::TransferProgress& progress) {
  totals.files += progress.totals.files;
  totals.directories += progress.totals.directories;
  totals.bytes += progress.totals.bytes;
  summary.files += more.files;
  summary.directories += more.directories;
  summary.bytes += more.bytes;
  summary.sentBytes += more.sentBytes;
  summary.failures += more.failures;
  summary.unchanged += more.unchanged;
}

void Copier::sayWhatWasDone() {
  if (shownOn(run, arguments) == ProgressLine::Shown::NO || (summary.files == 0 && summary.directories == 0)) return;
  auto took = run.world.now() - began;
  auto seconds = milliseconds(took) / 1000;
  auto rate = seconds > 0.001 ? static_cast<double>(summary.bytes) / seconds : 0;
  run.world.error(
      kj::str(summary.files, summary.files == 1 ? " file, " : " files, ", describeBytes(summary.bytes), " in ",
              describeDuration(took), " (", describeRate(rate), ")",
              summary.sentBytes < summary.bytes ? kj::str("; sent ", describeBytes(summary.sentBytes)) : kj::str(),
              arguments.verify ? "; verified\n" : "\n"));
}

void Copier::writeFields(JsonWriter& json) const {
  json.key("totals").beginObject().field("files", totals.files).field("directories", totals.directories);
  json.field("bytes", totals.bytes).endObject();
  json.key("summary").beginObject().field("files", summary.files).field("directories", summary.directories);
  json.field("bytes", summary.bytes).field("sentBytes", summary.sentBytes).field("unchanged", summary.unchanged);
  json.field("failures", summary.failures).endObject().field("verified", arguments.verify);
  json.field("seconds", milliseconds(run.world.now() - began) / 1000);
}

}  // namespace postern::cli
