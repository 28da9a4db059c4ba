#include "host/cli/local-target.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/cli/local-source.h"

namespace postern::cli {

namespace {

using Target = kj::OneOf<LocalPlace, kj::AutoCloseFd, transfer::Problem>;
using transfer::ProblemKind;

Target problem(ProblemKind kind, kj::StringPtr detail) {
  return transfer::problem(kind, kj::str(detail));
}

Target placeIn(int currentFolder, kj::StringPtr folder, kj::StringPtr name) {
  constexpr int FLAGS = O_DIRECTORY | O_CLOEXEC;
  int fd = openat(currentFolder, folder.cStr(), O_RDONLY | FLAGS);
  if (fd < 0 && errno == EACCES) fd = openat(currentFolder, folder.cStr(), O_PATH | FLAGS);
  if (fd < 0) return localProblem(errno, "be opened");
  return LocalPlace{kj::AutoCloseFd(fd), kj::str(name)};
}

// The path without symbolic links, of what is there.
kj::Maybe<kj::String> resolved(int currentFolder, kj::StringPtr path) {
  kj::AutoCloseFd handle(openat(currentFolder, path.cStr(), O_PATH | O_CLOEXEC));
  if (handle.get() < 0) return nullptr;
  char target[PATH_MAX];
  auto size = readlink(kj::str("/proc/self/fd/", handle.get()).cStr(), target, sizeof(target));
  if (size <= 0 || size == sizeof(target)) return nullptr;
  return kj::heapString(target, static_cast<size_t>(size));
}

// The place of what is there or shall be, by the last component of `path`, which has no slash at its end.
Target placeOf(int currentFolder, kj::StringPtr path) {
  size_t begin = path.size();
  while (begin > 0 && path[begin - 1] != '/') --begin;
  auto name = path.slice(begin);
  auto folder = begin == 0 ? kj::str(".") : kj::heapString(path.slice(0, begin));
  if (name.size() == 0) return problem(ProblemKind::IS_DIRECTORY, "cannot be replaced");
  return placeIn(currentFolder, folder, name);
}

Target existing(int currentFolder, const FilePath& destination, mode_t mode, const TargetWishes& wishes) {
  if (S_ISDIR(mode)) {
    if (wishes.name.size() > 0 && !wishes.content) return placeIn(currentFolder, destination.path, wishes.name);
  } else if (wishes.mustBeFolder) {
    return localProblem(ENOTDIR, "be opened");
  }
  if (S_ISCHR(mode) || S_ISFIFO(mode)) {
    // A FIFO that nobody reads is no wait.
    int fd = openat(currentFolder, destination.path.cStr(), O_WRONLY | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    if (fd < 0) return localProblem(errno, "be opened");
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
    return kj::AutoCloseFd(fd);
  }
  if (!S_ISDIR(mode) && !S_ISREG(mode)) return problem(ProblemKind::UNSUPPORTED, "is neither a file nor a directory");
  KJ_IF_MAYBE (path, resolved(currentFolder, destination.path)) {
    return placeOf(currentFolder, *path);
  }
  return localProblem(errno, "be opened");
}

}  // namespace

Target openTarget(int currentFolder, const FilePath& destination, const TargetWishes& wishes) {
  struct stat status {};
  if (fstatat(currentFolder, destination.path.cStr(), &status, 0) == 0) {
    return existing(currentFolder, destination, status.st_mode, wishes);
  }
  if (errno != ENOENT) return localProblem(errno, "be opened");
  if (fstatat(currentFolder, destination.path.cStr(), &status, AT_SYMLINK_NOFOLLOW) == 0) {
    return problem(ProblemKind::SYMBOLIC_LINK, "is a symbolic link to nothing");
  }
  if (wishes.mustBeFolder) return problem(ProblemKind::NO_SUCH_FILE, "no such directory; make it first");
  auto place = placeOf(currentFolder, destination.path);
  if (place.is<transfer::Problem>() && place.get<transfer::Problem>().kind == ProblemKind::NO_SUCH_FILE) {
    return problem(ProblemKind::NO_SUCH_FILE, "its directory is not there");
  }
  return place;
}

}  // namespace postern::cli
