#pragma once
// Opening by one path component, relative to a directory handle, without following a symbolic link: openat2 with
// RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS, or, where the kernel or a filter has no openat2,
// openat with O_NOFOLLOW, which says the same of a single component.

#include <fcntl.h>
#include <kj/io.h>
#include <kj/string.h>
#include <sys/stat.h>

namespace postern::transfer {

// For reading whatever may be there: never waits for a FIFO's other end, never becomes a controlling terminal.
constexpr int READ_FLAGS = O_RDONLY | O_NONBLOCK | O_NOCTTY;

// `name` is one component (isComponent()), or "." for the directory itself. O_CLOEXEC and O_NOFOLLOW are added. Null
// with errno: ELOOP is a symbolic link.
kj::AutoCloseFd openComponent(int folder, kj::StringPtr name, int flags, mode_t mode = 0);

// Whether openComponent() can take it.
bool kernelHasOpenat2();

// A directory, for reading its names and for making it durable; where reading it is not permitted, a handle (O_PATH)
// that can still be passed through. Null with errno.
kj::AutoCloseFd openDirectory(int folder, kj::StringPtr name);

// Of the symbolic link `name`; null with errno.
kj::Maybe<kj::String> readLink(int folder, kj::StringPtr name);

// "/proc/self/fd/N": for calls that take a path alone, of what is open already.
kj::String descriptorPath(int descriptor);

// Directories inside each other cost a descriptor each, and so does every file that waits for its name: the process's
// soft limit becomes its hard one.
void allowManyDescriptors();

}  // namespace postern::transfer
