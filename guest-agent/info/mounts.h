#pragma once
// The guest's file systems, from /proc/self/mountinfo (proc(5)). Mount points and sources are chosen by whoever mounts,
// an ordinary user with FUSE among them.

#include <kj/array.h>
#include <kj/string.h>

namespace postern::guest {

struct Mount {
  kj::String mountPoint;  // as the kernel has it, any bytes
  kj::String type;
  kj::String source;
  bool remote;  // asking it may take for ever: a network file system, or FUSE
};

// Those that hold data: no kernel interfaces (proc, sysfs, cgroup2 ...), no automounter's triggers, no memory file
// systems and overlays but a root; each device once, and of mounts on one place the upper. At most MAX_FILE_SYSTEMS, in
// the order of the file; lines that are not understood are left out.
kj::Array<Mount> parseMounts(kj::StringPtr mountinfo);

}  // namespace postern::guest
