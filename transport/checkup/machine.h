#pragma once
// Checks that are the same at both ends: what the kernel lacks, and who may do what to files and folders.

#include <sys/types.h>

#include "transport/checkup/checkup.h"

namespace postern {

// Landlock and openat2: without either all works, with one bar less for a process that was taken over.
void lookAtKernel(Checkup& out);

// A file or a folder, as it should be.
struct OwnedPath {
  kj::StringPtr path;
  kj::Maybe<uid_t> owner;  // beside root; null: anybody's
  mode_t forbidden;        // bits that nobody should have
};
// Whether it is wrong, which is added then. What is not there, and what this process may not look at, is not.
bool lookAtOwner(const OwnedPath& place, Checkup& out);

// Room for what is written below `folder`, or below the nearest folder above it that is there. Adds nothing if there is
// enough. Whether it is wrong, or nearly.
bool lookAtSpace(kj::StringPtr folder, Checkup& out);

// As `ls` names them; a number where there is no such user.
kj::String userName(uid_t uid);

}  // namespace postern
