#include "transport/transfer/guest-paths.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/transfer/limits.h"
#include "transport/printable.h"
#include "transport/transfer/open-component.h"

namespace postern::transfer {

namespace {

// Components of a canonical path below a root, one after the other.
class Below {
 public:
  Below(kj::StringPtr root, kj::StringPtr path) : path(path), end(root.size() == 1 ? 0 : root.size()) {
    KJ_REQUIRE(path.startsWith(root) && (root == "/" || path.size() == root.size() || path[root.size()] == '/'),
               "a path that is not below the root", root, path);
    if (path.size() == 1) end = 1;  // "/"
  }
  bool atEnd() const { return end >= path.size(); }
  kj::String next() {
    size_t begin = end + 1;
    end = begin;
    while (end < path.size() && path[end] != '/') ++end;
    return kj::str(path.slice(begin, end));
  }
  // With everything that next() has returned.
  kj::String soFar() const { return kj::str(path.slice(0, end)); }

 private:
  kj::StringPtr path;
  size_t end;
};

// Why `name` in `folder` could not be passed through.
Problem blockedAt(int folder, kj::StringPtr name, kj::StringPtr path, int error) {
  KJ_IF_MAYBE (target, readLink(folder, name)) {
    return problem(ProblemKind::SYMBOLIC_LINK, kj::str(path, ": is a symbolic link to ", printable(*target, 200),
                                                       ", and none is followed; name the path that it leads to"));
  }
  return problemOf(error, "be opened as a directory", path);
}

kj::OneOf<kj::AutoCloseFd, Problem> enter(int folder, kj::StringPtr name, kj::StringPtr path) {
  auto fd = openComponent(folder, name, O_PATH | O_DIRECTORY);
  if (fd == nullptr) return blockedAt(folder, name, path, errno);
  return kj::mv(fd);
}

// From a handle that can only be passed through to one that can be read and made durable, if that is permitted.
kj::OneOf<kj::AutoCloseFd, Problem> readable(int folder, kj::StringPtr path) {
  auto fd = openDirectory(folder, ".");
  if (fd == nullptr) return problemOf(errno, "be opened as a directory", path);
  return kj::mv(fd);
}

// A new directory gets its mode whatever the umask is; 0 or errno.
int makeOne(int folder, kj::StringPtr name, uint16_t mode, const PathScope& scope) {
  if (mkdirat(folder, name.cStr(), 0700) != 0) return errno;
  auto made = openDirectory(folder, name);
  if (made == nullptr) return errno;
  uint16_t permitted = scope.special ? 07777 : 0777;
  if (fchmod(made, mode & permitted) != 0 && errno != EBADF) return errno;
  fsync(folder);  // as far as it can be: nothing is lost with a name alone
  return 0;
}

}  // namespace

kj::OneOf<OpenedPath, Problem> openPath(int rootFolder, kj::StringPtr root, kj::StringPtr path) {
  Below below(root, path);
  auto folder = openComponent(rootFolder, ".", O_PATH | O_DIRECTORY);
  if (folder == nullptr) return problemOf(errno, "be opened as a directory", root);
  kj::String name = kj::str("");
  while (!below.atEnd()) {
    if (name.size() > 0) {
      auto next = enter(folder, name, below.soFar());
      if (next.is<Problem>()) return kj::mv(next.get<Problem>());
      folder = kj::mv(next.get<kj::AutoCloseFd>());
    }
    name = below.next();
  }
  auto handle = readable(folder, path);
  if (handle.is<Problem>()) return kj::mv(handle.get<Problem>());
  return OpenedPath{kj::mv(handle.get<kj::AutoCloseFd>()), kj::mv(name)};
}

kj::OneOf<kj::AutoCloseFd, Problem> openFolder(int folder, kj::StringPtr name) {
  auto fd = openDirectory(folder, name.size() == 0 ? "."_kj : name);
  if (fd != nullptr) return kj::mv(fd);
  return blockedAt(folder, name, printable(name, MAX_NAME_BYTES), errno);
}

kj::Maybe<Problem> makeDirectory(int rootFolder, kj::StringPtr root, kj::StringPtr path, bool parents, uint16_t mode,
                                 const PathScope& scope) {
  Below below(root, path);
  auto folder = openDirectory(rootFolder, ".");
  if (folder == nullptr) return problemOf(errno, "be opened as a directory", root);
  int error = EEXIST;
  while (!below.atEnd()) {
    auto name = below.next();
    auto here = below.soFar();
    error = EEXIST;
    if (below.atEnd() || parents) {
      auto verdict = scope.decide(here);
      // What is there already is passed through, whoever decided about it.
      if (!verdict.allowed && (below.atEnd() || faccessat(folder, name.cStr(), F_OK, AT_SYMLINK_NOFOLLOW) != 0)) {
        return deniedBy(verdict.rule);
      }
      if (verdict.allowed) error = makeOne(folder, name, mode, scope);
    }
    if (error != 0 && error != EEXIST) return problemOf(error, "be made", here);
    auto next = openDirectory(folder, name);
    if (next == nullptr) return blockedAt(folder, name, here, errno);
    folder = kj::mv(next);
  }
  if (error == EEXIST && !parents) return problemOf(EEXIST, "be made", path);
  return nullptr;
}

}  // namespace postern::transfer
