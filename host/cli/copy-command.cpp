// postern cp: which transfers it takes, in which order.

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "host/cli/commands.h"
#include "host/cli/copier.h"
#include "host/cli/local-source.h"
#include "host/cli/private-folder.h"

namespace postern::cli {

namespace {

kj::StringPtr wordOf(client::Sparse sparse) {
  return sparse == client::Sparse::ALWAYS ? "always"_kj : sparse == client::Sparse::NEVER ? "never"_kj : "auto"_kj;
}

// As --limit takes it.
kj::String rateText(uint64_t bytesPerSecond) {
  struct Unit {
    kj::StringPtr name;
    uint64_t bytes;
  };
  for (auto& unit : {Unit{"GiB"_kj, 1 << 30}, Unit{"GB"_kj, 1'000'000'000}, Unit{"MiB"_kj, 1 << 20},
                     Unit{"MB"_kj, 1'000'000}, Unit{"KiB"_kj, 1 << 10}, Unit{"kB"_kj, 1000}}) {
    if (bytesPerSecond % unit.bytes == 0) return kj::str(bytesPerSecond / unit.bytes, unit.name, "/s");
  }
  return kj::str(bytesPerSecond, "B/s");
}

// The same copy, going on.
kj::String resumeCommand(const CopyArguments& arguments, Letters letters) {
  kj::Vector<kj::String> words;
  words.add(kj::str("postern cp --resume"));
  if (arguments.archive) {
    words.add(kj::str("-a"));
  } else if (arguments.recursive) {
    words.add(kj::str("-r"));
  }
  if (arguments.verify) words.add(kj::str("--verify"));
  if (arguments.noClobber) words.add(kj::str("--no-clobber"));
  if (arguments.sparse != client::Sparse::AUTO) words.add(kj::str("--sparse ", wordOf(arguments.sparse)));
  if (arguments.bytesPerSecond > 0) words.add(kj::str("--limit ", rateText(arguments.bytesPerSecond)));
  bool dashes = false;
  for (auto& source : arguments.sources) dashes = dashes || source.path.startsWith("-");
  if (dashes || arguments.destination.path.startsWith("-")) words.add(kj::str("--"));
  for (auto& source : arguments.sources) words.add(shellWord(source.written(), letters));
  words.add(shellWord(arguments.destination.written(), letters));
  return kj::strArray(words, " ");
}

class Copy {
 public:
  Copy(Invocation& run, const CopyArguments& arguments)
      : run(run),
        arguments(arguments),
        destination(arguments.destination),
        report(run),
        copier(run, arguments, report) {}

  ExitStatus go();

 private:
  Invocation& run;
  const CopyArguments& arguments;
  const FilePath& destination;
  FileReport report;
  Copier copier;

  bool mustBeFolder() const { return destination.slash || arguments.sources.size() > 1; }
  int here() const { return run.world.currentFolderHandle(); }
  bool canGoOn() const { return !destination.stream && !arguments.sources[0].stream; }

  void all();
  void putLocal();
  void putOpened(LocalSources opened);
  void get(const FilePath& source);
  void relay(const FilePath& source);
  [[noreturn]] void interrupted();
  void finish();
};

void Copy::putOpened(LocalSources opened) {
  for (auto& problem : opened.problems) report.failed(problem.path, problem.problem);
  if (opened.tops.empty()) return;
  bool into = mustBeFolder() || opened.intoDirectory;
  copier.put(destination, kj::mv(opened.tops), into ? Copier::Into::DIRECTORY : Copier::Into::AS_IS);
}

void Copy::putLocal() {
  kj::Vector<FilePath> local;
  for (auto& source : arguments.sources) {
    if (source.stream) return copier.putStream(destination, run.world.inputStream());
    if (!source.isRemote()) local.add(source.clone());
  }
  if (!local.empty()) putOpened(openSources(here(), local, arguments.recursive, arguments.archive));
}

void Copy::get(const FilePath& source) {
  if (destination.stream) return copier.getStream(source, run.world.outputStream());
  auto target = openTarget(here(), destination, {source.name(), mustBeFolder(), source.content});
  KJ_SWITCH_ONEOF(target) {
    KJ_CASE_ONEOF(problem, transfer::Problem) {
      report.failed(destination.written(), problem);
    }
    KJ_CASE_ONEOF(place, LocalPlace) {
      copier.get(source, kj::mv(place));
    }
    KJ_CASE_ONEOF(stream, kj::AutoCloseFd) {
      if (arguments.recursive) {
        return report.failed(destination.written(), localProblem(ENOTDIR, "be opened"));
      }
      copier.getStream(source, kj::mv(stream));
    }
  }
}

// From one VM to another: a get to a folder that nobody else can read, then a put of what came.
void Copy::relay(const FilePath& source) {
  PrivateFolder folder(run.world.temporaryFolder());
  auto name = source.name().size() == 0 ? kj::str(source.vm) : source.name();
  copier.passThrough(folder.path());
  KJ_DEFER(copier.passThrough(""));
  copier.get(source, LocalPlace{folder.open(), kj::str(name)});
  struct stat status {};
  if (fstatat(folder.open(), name.cStr(), &status, AT_SYMLINK_NOFOLLOW) != 0) return;
  bool content = source.content && S_ISDIR(status.st_mode);
  FilePath arrived{kj::String(), kj::str(folder.path(), '/', name, content ? "/." : "")};
  arrived.content = content;
  // A link that came is a link, and is not followed to anything here.
  auto opened = openSources(here(), kj::arrayPtr(&arrived, 1), /* recursive */ true, /* archive */ true);
  for (auto& top : opened.tops) top.shown = source.written();
  putOpened(kj::mv(opened));
}

void Copy::all() {
  if (destination.isRemote()) putLocal();
  for (auto& source : arguments.sources) {
    if (!source.isRemote()) continue;
    if (source.slash && !arguments.recursive) {
      report.failed(source.written(),
                    transfer::problem(transfer::ProblemKind::IS_DIRECTORY, kj::str("is a directory (use -r)")));
    } else if (destination.isRemote()) {
      relay(source);
    } else {
      get(source);
    }
  }
}

void Copy::interrupted() {
  auto text = kj::str("interrupted; what is whole is there, and of the rest what was there before");
  if (copier.isWorthResuming() && canGoOn())
    text = kj::str(text, "; to go on: ", resumeCommand(arguments, report.letters()));
  if (!run.options.json) run.world.error(kj::str("postern: ", text, '\n'));
  fail(client::FailureKind::INTERRUPTED, kj::mv(text));
}

void Copy::finish() {
  auto status = report.finish();
  if (!run.options.json) {
    if (copier.wasCutOff() && canGoOn()) {
      run.world.error(kj::str("postern: to go on: ", resumeCommand(arguments, report.letters()), '\n'));
    }
    copier.sayWhatWasDone();
    return;
  }
  JsonWriter json;
  json.beginObject().field("ok", status == ExitStatus::DONE);
  copier.writeFields(json);
  report.writeFields(json);
  json.endObject();
  run.world.out(kj::str(json.finish(), '\n'));
}

ExitStatus Copy::go() {
  try {
    run.control();  // whatever stands in its way is the same for all
    all();
  } catch (const CommandFailure& failed) {
    if (failed.failure.kind == client::FailureKind::INTERRUPTED) interrupted();
    throw;
  }
  finish();
  return report.exitStatus();
}

}  // namespace

ExitStatus runCopy(Invocation& run, const CopyArguments& arguments) {
  return Copy(run, arguments).go();
}

}  // namespace postern::cli
