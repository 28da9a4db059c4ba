#pragma once
// Opening a canonical path below a root without following any symbolic link, and the two orders that need no mover:
// making a directory and removing. For the guest's opener.

#include <kj/io.h>
#include <kj/one-of.h>
#include <kj/string.h>

#include "protocol/transfer/path-scope.h"
#include "transport/transfer/system-problem.h"

namespace postern::transfer {

// `path` split: the folder that it is in, opened, and its last component. Of the root itself: that folder and "".
struct OpenedPath {
  kj::AutoCloseFd folder;
  kj::String name;
};
// `rootFolder` is a handle of `root`, which is canonical and a prefix of `path` by components. A link on the way is
// SYMBOLIC_LINK, with where it leads in the detail.
kj::OneOf<OpenedPath, Problem> openPath(int rootFolder, kj::StringPtr root, kj::StringPtr path);
// The directory `name` in `folder` ("" is `folder` itself).
kj::OneOf<kj::AutoCloseFd, Problem> openFolder(int folder, kj::StringPtr name);

// Null: done. Each path that is made or removed is decided by `scope`. `parents`: and what lacks above it; then a
// directory that is there already is as good. `mode` is that of new directories, whatever the umask.
kj::Maybe<Problem> makeDirectory(int rootFolder, kj::StringPtr root, kj::StringPtr path, bool parents, uint16_t mode,
                                 const PathScope& scope);
// Of a tree everything that can be removed is; the first that could not be is told.
kj::Maybe<Problem> removePath(int rootFolder, kj::StringPtr root, kj::StringPtr path, bool recursive,
                              const PathScope& scope);

}  // namespace postern::transfer
