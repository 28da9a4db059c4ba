#pragma once
// One agent a root: whoever holds the lock is it. The kernel drops the lock when its holder ends, however it ends, and
// names the holder to others, so there is no stale pid.

#include <kj/io.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <sys/types.h>

namespace postern::guest {

struct LockError {
  kj::String text;
};
struct LockHeld {
  pid_t holder;
};

// The lock lives as long as the descriptor. Folders on the way are made.
kj::OneOf<kj::AutoCloseFd, LockHeld, LockError> takeLock(kj::StringPtr path);
// Who holds it; null: nobody.
kj::Maybe<pid_t> lockHolder(kj::StringPtr path);

// Makes the folders above `path`, with `mode` for those that are new. A line for a person if that fails.
kj::Maybe<kj::String> makeFoldersAbove(kj::StringPtr path, mode_t mode);

}  // namespace postern::guest
