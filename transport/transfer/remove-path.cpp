// removePath() of guest-paths.h: a tree is gone through by handles, deepest first.
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/transfer/limits.h"
#include "transport/transfer/directory-reader.h"
#include "transport/transfer/guest-paths.h"
#include "transport/transfer/open-component.h"

namespace postern::transfer {

namespace {

// A directory that others fill as fast as it is emptied does not hold this up for ever.
constexpr int MAX_ROUNDS = 16;

class Remover {
 public:
  Remover(const PathScope& scope, bool recursive) : scope(scope), recursive(recursive) {}

  // Whether it is gone.
  bool remove(int folder, kj::StringPtr name, kj::StringPtr path, uint32_t depth) {
    auto verdict = scope.decide(path);
    if (!verdict.allowed) {
      auto denied = deniedBy(verdict.rule);
      denied.detail = kj::str(path, ": ", denied.detail);
      return tell(kj::mv(denied));
    }
    if (unlinkat(folder, name.cStr(), 0) == 0) return true;
    int error = errno;
    if (error == ENOENT && depth > 0) return false;  // somebody else was faster
    struct stat status {};
    if (fstatat(folder, name.cStr(), &status, AT_SYMLINK_NOFOLLOW) != 0) error = errno;
    if (!S_ISDIR(status.st_mode)) return tell(problemOf(error, "be removed", path));
    if (recursive) empty(folder, name, path, depth);
    if (unlinkat(folder, name.cStr(), AT_REMOVEDIR) == 0) return true;
    if (errno == ENOTEMPTY && !recursive) {
      return tell(problem(ProblemKind::NOT_EMPTY, kj::str(path,
                                                          ": the directory is not empty; -r removes it with all "
                                                          "that it holds")));
    }
    return tell(problemOf(errno, "be removed", path));
  }

  kj::Maybe<Problem> first;

 private:
  const PathScope& scope;
  bool recursive;

  bool tell(Problem&& why) {
    if (first == nullptr) first = kj::mv(why);
    return false;
  }

  void empty(int folder, kj::StringPtr name, kj::StringPtr path, uint32_t depth) {
    if (depth >= MAX_DEPTH) {
      tell(problem(ProblemKind::TOO_MANY, kj::str(path, ": more than ", MAX_DEPTH, " directories inside each other")));
      return;
    }
    auto directory = openComponent(folder, name, O_RDONLY | O_DIRECTORY);
    if (directory == nullptr) {
      tell(problemOf(errno, "be read", path));
      return;
    }
    DirectoryReader names(kj::mv(directory));
    // Some file systems pass over names while others are removed: until a round finds nothing more to remove.
    bool some = true;
    for (int round = 0; some && round < MAX_ROUNDS; ++round, names.rewind()) {
      some = false;
      for (;;) {
        KJ_IF_MAYBE (found, names.next()) {
          auto inner = kj::str(path == "/" ? ""_kj : path, "/", found->name);
          if (remove(names.descriptor(), found->name, inner, depth + 1)) some = true;
        } else {
          break;
        }
      }
    }
    if (names.error() != 0) tell(problemOf(names.error(), "be read", path));
  }
};

}  // namespace

kj::Maybe<Problem> removePath(int rootFolder, kj::StringPtr root, kj::StringPtr path, bool recursive,
                              const PathScope& scope) {
  auto opened = openPath(rootFolder, root, path);
  if (opened.is<Problem>()) return kj::mv(opened.get<Problem>());
  auto& at = opened.get<OpenedPath>();
  if (at.name.size() == 0) {
    return problem(ProblemKind::PERMISSION,
                   kj::str(path, ": is the folder that the policy allows, and is not removed itself"));
  }
  Remover remover(scope, recursive);
  remover.remove(at.folder, at.name, path, 0);
  fsync(at.folder);
  return kj::mv(remover.first);
}

}  // namespace postern::transfer
