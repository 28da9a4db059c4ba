#pragma once
// Where a copy puts what it brings here: a directory handle and a name in it, or a stream.

#include <kj/io.h>
#include <kj/one-of.h>

#include "host/cli/file-path.h"
#include "protocol/transfer/problem.h"

namespace postern::cli {

struct LocalPlace {
  kj::AutoCloseFd folder;
  kj::String name;
};

struct TargetWishes {
  kj::StringPtr name;         // of what comes; empty: it has none, and takes the place of the destination
  bool mustBeFolder = false;  // several sources, or a slash at the end
  bool content = false;       // what is in the source goes into the destination itself
};

// `destination` is a path here. A directory that is there is gone into; a symbolic link is followed; a FIFO or a
// character device is a stream to write to. Nothing is made.
kj::OneOf<LocalPlace, kj::AutoCloseFd, transfer::Problem> openTarget(int currentFolder, const FilePath& destination,
                                                                     const TargetWishes& wishes);

}  // namespace postern::cli
