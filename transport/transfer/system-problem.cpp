#include "transport/transfer/system-problem.h"

#include <errno.h>
#include <pwd.h>
#include <string.h>
#include <unistd.h>

namespace postern::transfer {

namespace {

ProblemKind kindOf(int error) {
  switch (error) {
    case ENOENT:
      return ProblemKind::NO_SUCH_FILE;
    case ENOTDIR:
      return ProblemKind::NOT_DIRECTORY;
    case EISDIR:
      return ProblemKind::IS_DIRECTORY;
    case EEXIST:
      return ProblemKind::EXISTS;
    case EACCES:
    case EPERM:
      return ProblemKind::PERMISSION;
    case ENAMETOOLONG:
      return ProblemKind::NAME_TOO_LONG;
    case ELOOP:
      return ProblemKind::SYMBOLIC_LINK;
    case ENOSPC:
      return ProblemKind::NO_SPACE;
    case EDQUOT:
      return ProblemKind::QUOTA;
    case EOPNOTSUPP:
    case ENXIO:
      return ProblemKind::UNSUPPORTED;
    case ESTALE:
      return ProblemKind::VANISHED;
    case EIO:
      return ProblemKind::UNREADABLE;
    case EBUSY:
    case ETXTBSY:
      return ProblemKind::BUSY;
    case ENOTEMPTY:
      return ProblemKind::NOT_EMPTY;
    case EROFS:
      return ProblemKind::READ_ONLY;
    default:
      return ProblemKind::FAILED;
  }
}

kj::String reasonFor(int error) {
  switch (error) {
    case EACCES:
    case EPERM:
      return kj::str("permission denied for user ", actingUser());
    case ELOOP:
      return kj::str("it is a symbolic link, and none is followed here");
    case ENOSPC:
      return kj::str("the disk is full");
    case EDQUOT:
      return kj::str("the disk quota of user ", actingUser(), " is used up");
    case EROFS:
      return kj::str("the file system is read-only");
    default:
      return kj::str(strerrordesc_np(error));
  }
}

kj::String userName(uid_t uid) {
  char buffer[4096];
  passwd entry{};
  passwd* found = nullptr;
  if (getpwuid_r(uid, &entry, buffer, sizeof(buffer), &found) == 0 && found != nullptr) return kj::str(found->pw_name);
  return kj::str(uid);
}

}  // namespace

kj::String actingUser() {
  struct Known {
    uid_t uid;
    kj::String name;
  };
  static const Known first = {geteuid(), userName(geteuid())};
  return geteuid() == first.uid ? kj::str(first.name) : userName(geteuid());
}

Problem atDestination(const Problem& problem) {
  auto shown = copy(problem);
  shown.detail = kj::str("at the destination: ", problem.detail);
  return shown;
}

Problem problemOf(int error, kj::StringPtr what, kj::StringPtr path) {
  return problem(kindOf(error), kj::str(path, path.size() > 0 ? ": " : "", "cannot ", what, ": ", reasonFor(error)));
}

Problem deniedBy(kj::StringPtr rule) {
  auto detail = rule.size() > 0 ? kj::str("denied by rule ", rule) : kj::str("denied: no rule allows it");
  return {ProblemKind::DENIED, kj::mv(detail), kj::str(rule)};
}

}  // namespace postern::transfer
