// postern ls and postern stat.

#include <algorithm>

#include "host/cli/commands.h"
#include "host/cli/entry-text.h"
#include "host/cli/file-report.h"
#include "host/cli/transfer-wait.h"

namespace postern::cli {

namespace {

// Lists of up to so many bytes are sorted; what is longer comes as the guest's directories have it.
constexpr size_t SORTED_BYTES = size_t(8) << 20;
constexpr size_t LINES_AT_ONCE = 100;
constexpr auto TAKE_INTERVAL = 10 * kj::MILLISECONDS;
// Counting comes first, and says nothing.
constexpr auto LIST_STALLS = 60 * kj::SECONDS;

// What is printed, in the one form or the other.
class ListOutput {
 public:
  ListOutput(Invocation& run, const ListFilesArguments& arguments, Letters letters)
      : run(run), arguments(arguments), letters(letters) {
    if (run.options.json) json.beginObject().key("entries").beginArray();
  }

  void begin(const FilePath& path) {
    if (run.options.json || arguments.paths.size() < 2) return;
    run.world.out(kj::str(any ? "\n" : "", shownPath(path.written(), letters), ":\n"));
    any = true;
  }
  void add(const FilePath& operand, client::ListedEntry listed);
  void flush(const FilePath& operand);
  void finish(const FileReport& report, ExitStatus status) {
    if (!run.options.json) return;
    json.endArray().field("ok", status == ExitStatus::DONE);
    report.writeFields(json);
    json.endObject();
    run.world.out(kj::str(json.finish(), '\n'));
  }

 private:
  Invocation& run;
  const ListFilesArguments& arguments;
  const Letters letters;
  JsonWriter json;
  kj::Vector<ListLine> lines;
  size_t bytes = 0;
  bool any = false;
  bool sorted = true;

  bool isHidden(kj::StringPtr name) const {
    if (arguments.all) return false;
    if (name.startsWith(".")) return true;
    for (size_t i = 0; i + 1 < name.size(); ++i) {
      if (name[i] == '/' && name[i + 1] == '.') return true;
    }
    return false;
  }
};

void ListOutput::add(const FilePath& operand, client::ListedEntry listed) {
  kj::String name;
  KJ_IF_MAYBE (slash, listed.path.findFirst('/')) {
    name = kj::str(listed.path.slice(*slash + 1));
    if (isHidden(name)) return;
  } else {
    if (listed.entry.kind == transfer::EntryKind::DIRECTORY) return;  // what is in it was asked for
    name = operand.written();
  }
  auto& entry = listed.entry;
  bytes += sizeof(ListLine) + name.size() + entry.name.size() + entry.target.size() + entry.owner.size() +
           entry.group.size();
  for (auto& attribute : entry.attributes) bytes += sizeof(attribute) + attribute.name.size();
  lines.add(ListLine{kj::mv(name), kj::mv(listed.entry)});
  if (bytes < SORTED_BYTES) return;
  sorted = false;
  flush(operand);
}

void ListOutput::flush(const FilePath& operand) {
  if (sorted) {
    std::sort(lines.begin(), lines.end(), [](const ListLine& a, const ListLine& b) { return a.name < b.name; });
  }
  if (run.options.json) {
    size_t written = 0;
    for (auto& line : lines) {
      json.beginObject().field("vm", operand.vm);
      writeName(json, "in", operand.path);
      writeEntry(json, line.name, line.entry);
      json.endObject();
      // What is not ASCII becomes several times as long.
      if (++written % LINES_AT_ONCE == 0) run.world.out(json.take());
    }
    run.world.out(json.take());
  } else if (arguments.details) {
    run.world.out(detailsOf(lines, letters));
  } else {
    auto names = KJ_MAP(line, lines) {
      return kj::str(escapedName(line.name, letters), '\n');
    };
    run.world.out(kj::strArray(names, ""));
  }
  lines.clear();
  bytes = 0;
}

// One list, or one stat, whose entries go to `take`.
void transferList(Invocation& run, FileReport& report, const FilePath& path, const client::FileOrder& order,
                  kj::Function<void(client::ListedEntry)> take) {
  auto vm = run.openVm(path.vm, {transfer::callName(order.call)}, order.path);
  auto transfer = client::FileTransfer::list(*vm, order);
  auto during = [&]() {
    for (auto& entry : transfer->takeEntries()) take(kj::mv(entry));
    for (auto& failure : transfer->takeFailures()) report.entryFailed(pathBelow(path, failure.path), failure.problem);
  };
  TransferWait wait{path.vm, TAKE_INTERVAL, run.options.timeout.orDefault(LIST_STALLS)};
  auto outcome = waitForTransfer(run, *transfer, wait, during);
  KJ_SWITCH_ONEOF(outcome) {
    KJ_CASE_ONEOF(summary, transfer::Summary) {
      report.carriedOut(summary, transfer->progress().failures);
    }
    KJ_CASE_ONEOF(problem, transfer::Problem) {
      report.failed(path.written(), problem);
    }
    KJ_CASE_ONEOF(failure, client::Failure) {
      report.failed(Invocation::about(path.vm, kj::mv(failure)));
    }
  }
}

// Goes on past what fails, but not past Ctrl-C.
template <typename Each>
void forEach(FileReport& report, kj::ArrayPtr<const FilePath> paths, Each&& each) {
  for (auto& path : paths) {
    try {
      each(path);
    } catch (const CommandFailure& failed) {
      if (failed.failure.kind == client::FailureKind::INTERRUPTED) throw;
      report.failed(failed.failure);
    }
  }
}

}  // namespace

ExitStatus runListFiles(Invocation& run, const ListFilesArguments& arguments) {
  run.control();
  FileReport report(run);
  ListOutput output(run, arguments, report.letters());
  forEach(report, arguments.paths, [&](const FilePath& path) {
    client::FileOrder order{client::FileCall::LIST, kj::str(path.path)};
    order.recursive = arguments.recursive;
    order.archive = arguments.details || run.options.json;  // names of owners
    output.begin(path);
    transferList(run, report, path, order, [&](client::ListedEntry entry) { output.add(path, kj::mv(entry)); });
    output.flush(path);
  });
  auto status = report.finish();
  output.finish(report, status);
  return status;
}

ExitStatus runFileStatus(Invocation& run, const FileStatusArguments& arguments) {
  run.control();
  FileReport report(run);
  JsonWriter json;
  if (run.options.json) json.beginObject().key("entries").beginArray();
  forEach(report, arguments.paths, [&](const FilePath& path) {
    client::FileOrder order{client::FileCall::STAT, kj::str(path.path)};
    order.archive = true;
    transferList(run, report, path, order, [&](client::ListedEntry listed) {
      if (!run.options.json) {
        run.world.out(statusOf(path.written(), listed.entry, report.letters()));
        return;
      }
      json.beginObject().field("vm", path.vm);
      writeName(json, "path", path.path);
      writeEntry(json, path.name(), listed.entry);
      json.endObject();
    });
  });
  auto status = report.finish();
  if (!run.options.json) return status;
  json.endArray().field("ok", status == ExitStatus::DONE);
  report.writeFields(json);
  json.endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return status;
}

}  // namespace postern::cli
