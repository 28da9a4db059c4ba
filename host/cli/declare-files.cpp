#include "host/cli/declare.h"
#include "host/cli/failure-text.h"
#include "protocol/policy/units.h"

namespace postern::cli {

namespace {

using Paths = kj::Vector<FilePath>;
using Mistake = std::shared_ptr<kj::String>;  // of a word; empty: none. CLI11 copies its callbacks

constexpr auto COPY_FOOTER =
    "A path in a VM is VM:/PATH, as in scp; ./a:b is a file here. '-' is standard input or output. Several SRC, or a "
    "slash\n"
    "at its end: DST must be a directory. A directory that is there: into it. From VM to VM the bytes pass through "
    "this\n"
    "machine, in a private folder below $TMPDIR that is gone afterwards; policy must allow the one get and the other "
    "put.\n"
    "A file is there when it is whole, and before that what was there. RATE is as 20 MiB/s. Exit status: 1 also if a "
    "part\n"
    "could not be copied (the rest was); else as of every command (postern --help).";

void addPaths(CLI::App& app, const char* name, Paths& target, const Mistake& mistake, const char* help) {
  app.add_option_function<std::vector<std::string>>(
         name,
         [&target, mistake](const std::vector<std::string>& words) {
           for (auto& word : words) {
             auto parsed = parseFilePath(valueOf(word));
             KJ_SWITCH_ONEOF(parsed) {
               KJ_CASE_ONEOF(path, FilePath) {
                 target.add(kj::mv(path));
               }
               KJ_CASE_ONEOF(error, kj::String) {
                 if (mistake->size() == 0) *mistake = kj::mv(error);
               }
             }
           }
         },
         help)
      ->required()
      ->type_name("");
}

void addRate(CLI::App& app, uint64_t& target, const Mistake& mistake) {
  app.add_option_function<std::string>(
         "--limit",
         [&target, mistake](const std::string& value) {
           auto parsed = policy::parseRate(valueOf(value));
           KJ_SWITCH_ONEOF(parsed) {
             KJ_CASE_ONEOF(rate, uint64_t) {
               target = rate;
             }
             KJ_CASE_ONEOF(error, policy::UnitError) {
               if (mistake->size() == 0) *mistake = kj::str("--limit: ", error);
             }
           }
         },
         "At most so many bytes a second")
      ->type_name("RATE");
}

std::string notSparse(const std::string& text) {
  if (text == "auto" || text == "always" || text == "never") return {};
  return kj::str("--sparse is auto, always or never, and not '", shown(valueOf(text), 60), "'").cStr();
}

void addSparse(CLI::App& app, client::Sparse& target) {
  app.add_option_function<std::string>(
         "--sparse",
         [&target](const std::string& value) {
           target = value == "always"  ? client::Sparse::ALWAYS
                    : value == "never" ? client::Sparse::NEVER
                                       : client::Sparse::AUTO;
         },
         "auto: holes stay holes (the default); always: runs of zeros become holes, too; never")
      ->check(CLI::Validator(notSparse, "", "sparse"))
      ->type_name("HOW");
}

kj::Maybe<kj::String> checkStreams(const CopyArguments& arguments) {
  bool in = false;
  for (auto& source : arguments.sources) in = in || source.stream;
  if (!in && !arguments.destination.stream) return nullptr;
  if (in && arguments.destination.stream) return kj::str("one of SRC and DST must be in a VM");
  if (arguments.sources.size() > 1) return kj::str("'-' goes with one SRC and one DST");
  if (in && arguments.destination.slash) return kj::str("standard input has no name: DST must name a file");
  if (arguments.recursive) return kj::str("'-' is one file: leave -r and -a out");
  if (arguments.resume) return kj::str("what came through '-' cannot come again: leave --resume out");
  return nullptr;
}

// The last of the words, which are all in `sources` yet, is the destination.
kj::Maybe<kj::String> checkCopy(CopyArguments& arguments) {
  if (arguments.sources.size() < 2) return kj::str("DST is required");
  arguments.destination = kj::mv(arguments.sources.back());
  arguments.sources.removeLast();
  arguments.recursive = arguments.recursive || arguments.archive;
  if (!arguments.destination.isRemote()) {
    for (auto& source : arguments.sources) {
      if (!source.isRemote() && !source.stream) {
        return kj::str("'", shown(source.path), "' and '", shown(arguments.destination.path),
                       "' are both here: use cp; a path in a VM is VM:/PATH");
      }
    }
  }
  return checkStreams(arguments);
}

kj::Maybe<kj::String> checkRemote(const Paths& paths) {
  for (auto& path : paths) {
    if (!path.isRemote()) return kj::str("'", shown(path.path), "' is not in a VM: write VM:/PATH");
  }
  return nullptr;
}

void declareCopy(CLI::App& app, Declared& declared) {
  auto mistake = std::make_shared<kj::String>();
  auto* sub = addCommand<CopyArguments>(
      app, "cp", "Copies files and trees into a VM, out of one, and between two", declared,
      [&](CLI::App& sub, CopyArguments& arguments) {
        addPaths(sub, "SRC", arguments.sources, mistake, "What is copied, one or several; and last DST, where to");
        sub.add_flag("-r,--recursive", arguments.recursive, "Directories, and what is in them");
        sub.add_flag("-a,--archive", arguments.archive,
                     "As -r, and owner, extended attributes, ACLs and hard links stay what they are");
        sub.add_flag("--resume", arguments.resume, "Goes on from where an earlier one was interrupted");
        sub.add_flag("--verify", arguments.verify, "Reads every file again from the disk it went to, and compares");
        addSparse(sub, arguments.sparse);
        addRate(sub, arguments.bytesPerSecond, mistake);
        auto* force = sub.add_flag("--force")->description("Replaces what is there (the default)");
        sub.add_flag("--no-clobber", arguments.noClobber, "What is there stays, and is a failure")->excludes(force);
      },
      [mistake](CopyArguments& arguments) -> kj::Maybe<kj::String> {
        if (mistake->size() > 0) return kj::str(*mistake);
        return checkCopy(arguments);
      });
  sub->footer(COPY_FOOTER);
}

template <typename T, typename Declare>
void declareOnPaths(CLI::App& app, Declared& declared, const char* name, const char* help, Declare&& declare) {
  auto mistake = std::make_shared<kj::String>();
  addCommand<T>(
      app, name, help, declared,
      [&](CLI::App& sub, T& arguments) {
        addPaths(sub, "PATH", arguments.paths, mistake, "VM:/PATH, one or several");
        declare(sub, arguments);
      },
      [mistake](const T& arguments) -> kj::Maybe<kj::String> {
        if (mistake->size() > 0) return kj::str(*mistake);
        return checkRemote(arguments.paths);
      });
}

}  // namespace

void declareFiles(CLI::App& app, Declared& declared) {
  declareCopy(app, declared);
  declareOnPaths<ListFilesArguments>(
      app, declared, "ls", "Lists what is in a directory of a VM", [](CLI::App& sub, ListFilesArguments& arguments) {
        sub.add_flag("-l", arguments.details, "Mode, owner, group, size and time, too");
        sub.add_flag("-a,--all", arguments.all, "Names that begin with '.', too");
        sub.add_flag("-R,--recursive", arguments.recursive, "What is in the directories, too");
      });
  declareOnPaths<FileStatusArguments>(app, declared, "stat", "Shows what a VM knows of a file",
                                      [](CLI::App&, FileStatusArguments&) {});
  declareOnPaths<MakeFolderArguments>(
      app, declared, "mkdir", "Makes directories in a VM", [](CLI::App& sub, MakeFolderArguments& arguments) {
        sub.add_flag("-p,--parents", arguments.parents, "And what lacks above them; one that is there is no failure");
      });
  declareOnPaths<RemoveFilesArguments>(
      app, declared, "rm", "Removes files of a VM", [](CLI::App& sub, RemoveFilesArguments& arguments) {
        sub.add_flag("-r,--recursive", arguments.recursive, "Directories, and what is in them");
        sub.add_flag("-f,--force", arguments.force, "What is not there is no failure");
      });
}

}  // namespace postern::cli
