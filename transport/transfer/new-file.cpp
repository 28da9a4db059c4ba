#include "transport/transfer/new-file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/transfer/limits.h"
#include "transport/transfer/open-component.h"
#include "transport/transfer/partial-file.h"
#include "transport/transfer/system-problem.h"

namespace postern::transfer {

namespace {

// Not less than the next transfer can find out by hashes.
bool isWorthKeeping(int descriptor) {
  struct stat status {};
  if (fstat(descriptor, &status) != 0) return false;
  return uint64_t(status.st_size) >= CHUNK_BYTES && uint64_t(status.st_blocks) * 512 >= CHUNK_BYTES;
}

Problem notPlaced(int error) {
  if (error == EBUSY) {
    return problem(ProblemKind::BUSY, kj::str("another transfer writes to it; wait until that is over"));
  }
  if (error == ESTALE) {
    return problem(ProblemKind::CHANGED, kj::str("somebody else has taken its temporary file away or replaced it"));
  }
  if (error == EISDIR) return problem(ProblemKind::IS_DIRECTORY, kj::str("is a directory at the destination"));
  if (error == EEXIST) return problem(ProblemKind::EXISTS, kj::str("exists at the destination, and stays as it is"));
  return problemOf(error, "be made", "");
}

bool cannotBeUnnamed(int error) {
  return error == EOPNOTSUPP || error == EISDIR || error == ENOENT || error == EINVAL;
}

}  // namespace

NewFile::NewFile(kj::Own<DestinationFolder> folder, kj::String name, kj::AutoCloseFd descriptor, kj::String partial)
    : folder(kj::mv(folder)), name(kj::mv(name)), opened(kj::mv(descriptor)), partial(kj::mv(partial)) {}

NewFile::~NewFile() noexcept(false) {
  if (opened == nullptr || partial.size() == 0) return;
  if (keep && isWorthKeeping(opened)) return;
  if (isNamed(opened, folder->descriptor, partial)) unlinkat(folder->descriptor, partial.cStr(), 0);
}

FileMaker::FileMaker(Existing existing)
    : existing(existing), descriptors(::open("/proc/self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC)) {}

kj::OneOf<NewFile, Problem> FileMaker::open(DestinationFolder& folder, kj::StringPtr name, IfInterrupted ifInterrupted,
                                            bool resume) {
  if (ifInterrupted == IfInterrupted::GONE && descriptors.get() >= 0) {
    auto unnamed = openComponent(folder.descriptor, ".", O_TMPFILE | O_RDWR, 0600);
    if (unnamed != nullptr) return NewFile(kj::addRef(folder), kj::str(name), kj::mv(unnamed), kj::String());
    if (!cannotBeUnnamed(errno)) return problemOf(errno, "be made", "");
  }
  auto partial = partialName(name);
  auto opened = openPartial(folder.descriptor, partial, resume ? Leftover::USE : Leftover::EMPTY);
  if (opened.is<Problem>()) return kj::mv(opened.get<Problem>());
  auto& file = opened.get<PartialFile>();
  NewFile made(kj::addRef(folder), kj::str(name), kj::mv(file.descriptor), kj::mv(partial));
  made.keep = ifInterrupted == IfInterrupted::KEPT;
  made.resumed = file.resumed;
  return kj::mv(made);
}

int FileMaker::link(int descriptor, int folder, kj::StringPtr name) const {
  int result = descriptors.get() < 0
                   ? linkat(descriptor, "", folder, name.cStr(), AT_EMPTY_PATH)
                   : linkat(descriptors, kj::str(descriptor).cStr(), folder, name.cStr(), AT_SYMLINK_FOLLOW);
  return result == 0 ? 0 : errno;
}

// T82
kj::Maybe<Problem> FileMaker::place(NewFile& file) {
  int error = file.partial.size() == 0 ? placeUnnamed(file) : placePartial(file);
  if (error != 0) {
    file.spoil();
    return notPlaced(error);
  }
  file.partial = kj::String();  // nothing is left to be removed
  file.folder->touched = true;
  return nullptr;
}

int FileMaker::placeUnnamed(NewFile& file) {
  int folder = file.folder->descriptor;
  int error = link(file.opened, folder, file.name);
  if (error != EEXIST || existing == Existing::STAYS) return error;
  // link() does not replace, rename() does: so it has another name for a moment, and is locked meanwhile.
  auto partial = partialName(file.name);
  if (flock(file.opened, LOCK_EX | LOCK_NB) != 0) return errno;
  error = link(file.opened, folder, partial);
  if (error == EEXIST) {
    error = clearPartial(folder, partial);
    if (error == 0) error = link(file.opened, folder, partial);
    if (error == EEXIST) error = EBUSY;
  }
  if (error != 0) return error;
  if (!isNamed(file.opened, folder, partial)) return ESTALE;
  if (renameat(folder, partial.cStr(), folder, file.name.cStr()) == 0) return 0;
  error = errno;
  unlinkat(folder, partial.cStr(), 0);
  return error;
}

int FileMaker::placePartial(NewFile& file) {
  int folder = file.folder->descriptor;
  const char* from = file.partial.cStr();
  const char* to = file.name.cStr();
  if (!isNamed(file.opened, folder, file.partial)) return ESTALE;
  if (existing == Existing::REPLACE) return renameat(folder, from, folder, to) == 0 ? 0 : errno;
  if (renameat2(folder, from, folder, to, RENAME_NOREPLACE) == 0) return 0;
  if (errno != EINVAL && errno != ENOSYS) return errno;
  // A file system without that flag: a link does not replace either.
  if (linkat(folder, from, folder, to, 0) != 0) return errno;
  unlinkat(folder, from, 0);
  return 0;
}

kj::Maybe<Problem> FileMaker::make(DestinationFolder& folder, kj::StringPtr name,
                                   kj::FunctionParam<int(kj::StringPtr)> make,
                                   kj::FunctionParam<void(kj::StringPtr)> describe) {
  int error = make(name);
  if (error == 0) {
    folder.touched = true;
    describe(name);
    return nullptr;
  }
  if (error != EEXIST || existing == Existing::STAYS) return notPlaced(error);
  auto partial = partialName(name);
  error = make(partial);
  if (error == EEXIST) {
    error = clearPartial(folder.descriptor, partial);
    if (error == 0) error = make(partial);
  }
  if (error != 0) return notPlaced(error == EEXIST ? EBUSY : error);
  describe(partial);
  error = renameat(folder.descriptor, partial.cStr(), folder.descriptor, name.cStr()) == 0 ? 0 : errno;
  // Still there if it could not be renamed, or if both names are links to one file already.
  unlinkat(folder.descriptor, partial.cStr(), 0);
  if (error != 0) return notPlaced(error);
  folder.touched = true;
  return nullptr;
}

}  // namespace postern::transfer
