#include "host/cli/local-source.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/map.h>
#include <sys/stat.h>

#include "transport/transfer/open-component.h"
#include "transport/transfer/system-problem.h"

namespace postern::cli {

namespace {

using transfer::ProblemKind;
using transfer::SourceTop;

// A handle of a directory, whether its names may be read or not.
kj::AutoCloseFd openFolder(int currentFolder, kj::StringPtr path) {
  constexpr int FLAGS = O_DIRECTORY | O_CLOEXEC;
  int fd = openat(currentFolder, path.cStr(), O_RDONLY | FLAGS);
  if (fd < 0 && errno == EACCES) fd = openat(currentFolder, path.cStr(), O_PATH | FLAGS);
  return kj::AutoCloseFd(fd);
}

struct Split {
  kj::String folder;
  kj::String name;  // empty, "." or "..": the path is a directory that has no name of its own
};
Split split(kj::StringPtr path) {
  size_t end = path.size();
  while (end > 0 && path[end - 1] == '/') --end;
  size_t begin = end;
  while (begin > 0 && path[begin - 1] != '/') --begin;
  return {begin == 0 ? kj::str(path.startsWith("/") ? "/" : ".") : kj::heapString(path.slice(0, begin)),
          kj::heapString(path.slice(begin, end))};
}

class Opening {
 public:
  Opening(int currentFolder, bool recursive, bool archive)
      : currentFolder(currentFolder), recursive(recursive), archive(archive) {}

  void open(const FilePath& source) {
    auto parts = split(source.path);
    if (parts.name.size() == 0 || parts.name == "."_kj || parts.name == ".."_kj) {
      openContent(source.path);
      return;
    }
    auto folder = openFolder(currentFolder, parts.folder);
    if (folder.get() < 0) return failed(source.path, localProblem(errno, "be opened"));
    struct stat status {};
    bool follow = !archive || source.slash;
    if (fstatat(folder, parts.name.cStr(), &status, follow ? 0 : AT_SYMLINK_NOFOLLOW) != 0) {
      return failed(source.path, localProblem(errno, "be read"));
    }
    if (S_ISDIR(status.st_mode) && !recursive) return failed(source.path, isDirectory());
    if (!S_ISDIR(status.st_mode) && source.slash) return failed(source.path, localProblem(ENOTDIR, "be read"));
    auto shown = kj::heapString(withoutSlashes(source.path));
    add(SourceTop{kj::mv(folder), kj::str(parts.name), kj::mv(parts.name), kj::mv(shown), kj::String(), follow});
  }

  LocalSources finish() { return kj::mv(result); }

 private:
  const int currentFolder;
  const bool recursive;
  const bool archive;
  LocalSources result;
  kj::HashMap<kj::String, kj::String> names;  // that tops have, and whose they are

  static kj::ArrayPtr<const char> withoutSlashes(kj::StringPtr path) {
    size_t end = path.size();
    while (end > 1 && path[end - 1] == '/') --end;
    return path.slice(0, end);
  }
  static transfer::Problem isDirectory() {
    return transfer::problem(ProblemKind::IS_DIRECTORY, kj::str("is a directory (use -r)"));
  }

  void failed(kj::StringPtr path, transfer::Problem problem) {
    result.problems.add(client::EntryProblem{kj::str(path), kj::mv(problem)});
  }

  void add(SourceTop top) {
    KJ_IF_MAYBE (other, names.find(kj::StringPtr(top.as))) {
      auto detail = kj::str("has the same name as ", *other, ", and would take its place");
      return failed(top.shown, transfer::problem(ProblemKind::EXISTS, kj::mv(detail)));
    }
    names.insert(kj::str(top.as), kj::str(top.shown));
    result.tops.add(kj::mv(top));
  }

  // What is in the directory, each by itself.
  void openContent(kj::StringPtr path) {
    if (!recursive) return failed(path, isDirectory());
    auto folder = openFolder(currentFolder, path);
    if (folder.get() < 0) return failed(path, localProblem(errno, "be opened"));
    int fd = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    auto* names = fd < 0 ? nullptr : fdopendir(fd);
    if (names == nullptr) return failed(path, localProblem(errno, "be read"));
    KJ_DEFER(closedir(names));
    result.intoDirectory = true;
    // As the user would write it: "site/x" of "site/.", "x" of ".".
    auto shown = path.slice(0, path.endsWith("/.") || path == "."_kj ? path.size() - 1 : path.size());
    auto prefix = kj::str(shown, shown.size() == 0 || shown.back() == '/' ? "" : "/");
    while (auto* entry = readdir(names)) {
      kj::StringPtr name = static_cast<const char*>(entry->d_name);
      if (name == "."_kj || name == ".."_kj) continue;
      auto handle = openFolder(folder, ".");
      if (handle.get() < 0) return failed(path, localProblem(errno, "be opened"));
      add(SourceTop{kj::mv(handle), kj::str(name), kj::str(name), kj::str(prefix, name), kj::String(), false});
    }
  }
};

}  // namespace

transfer::Problem localProblem(int error, kj::StringPtr what) {
  auto problem = transfer::problemOf(error, what, "");
  if (problem.kind == ProblemKind::NO_SUCH_FILE) problem.detail = kj::str("no such file or directory");
  if (problem.kind == ProblemKind::NOT_DIRECTORY) problem.detail = kj::str("is not a directory");
  return problem;
}

LocalSources openSources(int currentFolder, kj::ArrayPtr<const FilePath> sources, bool recursive, bool archive) {
  transfer::allowManyDescriptors();  // each source has one
  Opening opening(currentFolder, recursive, archive);
  for (auto& source : sources) opening.open(source);
  return opening.finish();
}

}  // namespace postern::cli
