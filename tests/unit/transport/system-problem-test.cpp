#include "transport/transfer/system-problem.h"

#include <doctest/doctest.h>
#include <errno.h>

namespace postern::transfer {
namespace {

TEST_CASE("what an error of the system is for a transfer: a kind to branch on, and a line that says why") {
  struct {
    int error;
    ProblemKind kind;
    kj::StringPtr reason;
  } const cases[] = {
      {ENOENT, ProblemKind::NO_SUCH_FILE, "No such file or directory"_kj},
      {ENOTDIR, ProblemKind::NOT_DIRECTORY, "Not a directory"_kj},
      {EISDIR, ProblemKind::IS_DIRECTORY, "Is a directory"_kj},
      {EEXIST, ProblemKind::EXISTS, "File exists"_kj},
      {ENAMETOOLONG, ProblemKind::NAME_TOO_LONG, "File name too long"_kj},
      {ELOOP, ProblemKind::SYMBOLIC_LINK, "it is a symbolic link, and none is followed here"_kj},
      {ENOSPC, ProblemKind::NO_SPACE, "the disk is full"_kj},
      {EOPNOTSUPP, ProblemKind::UNSUPPORTED, "Operation not supported"_kj},
      {ENXIO, ProblemKind::UNSUPPORTED, "No such device or address"_kj},
      {ESTALE, ProblemKind::VANISHED, "Stale file handle"_kj},
      {EIO, ProblemKind::UNREADABLE, "Input/output error"_kj},
      {EBUSY, ProblemKind::BUSY, "Device or resource busy"_kj},
      {ETXTBSY, ProblemKind::BUSY, "Text file busy"_kj},
      {ENOTEMPTY, ProblemKind::NOT_EMPTY, "Directory not empty"_kj},
      {EROFS, ProblemKind::READ_ONLY, "the file system is read-only"_kj},
      {EMFILE, ProblemKind::FAILED, "Too many open files"_kj},
  };
  for (auto& one : cases) {
    auto problem = problemOf(one.error, "be read", "/srv/a");
    CHECK(problem.kind == one.kind);
    CHECK((problem.detail == kj::str("/srv/a: cannot be read: ", one.reason)));
  }
}

TEST_CASE("an error that is about a user names him") {
  for (int error : {EACCES, EPERM}) {
    auto problem = problemOf(error, "be read", "");
    CHECK(problem.kind == ProblemKind::PERMISSION);
    CHECK((problem.detail == kj::str("cannot be read: permission denied for user ", actingUser())));
  }
  auto problem = problemOf(EDQUOT, "be written", "");
  CHECK(problem.kind == ProblemKind::QUOTA);
  CHECK((problem.detail == kj::str("cannot be written: the disk quota of user ", actingUser(), " is used up")));
}

}  // namespace
}  // namespace postern::transfer
