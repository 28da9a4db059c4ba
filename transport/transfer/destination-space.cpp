#include "transport/transfer/destination-space.h"

#include <sys/statvfs.h>
#include <unistd.h>

#include "transport/transfer/quota.h"

namespace postern::transfer {

kj::Maybe<Problem> lacksSpace(int folder, uint64_t bytes, uint64_t entries, uint64_t freed) {
  struct statvfs system {};
  if (fstatvfs(folder, &system) != 0 || system.f_blocks == 0) return nullptr;  // it does not say
  uint64_t blocks = geteuid() == 0 ? system.f_bfree : system.f_bavail;
  uint64_t free = blocks * system.f_frsize;
  if (bytes > free && bytes - free > freed) {
    return problem(ProblemKind::NO_SPACE,
                   kj::str("needs ", sizeText(bytes), ", and ", sizeText(free), " are free at the destination"));
  }
  uint64_t inodes = geteuid() == 0 ? system.f_ffree : system.f_favail;
  if (system.f_files > 0 && entries > inodes) {
    return problem(ProblemKind::NO_SPACE, kj::str("needs ", entries,
                                                  " files, and the destination's file system has room "
                                                  "for ",
                                                  inodes));
  }
  return nullptr;
}

}  // namespace postern::transfer
