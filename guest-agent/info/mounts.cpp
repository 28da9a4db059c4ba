#include "guest-agent/info/mounts.h"

#include <kj/vector.h>

#include "guest-agent/info/probes.h"

namespace postern::guest {

namespace {

constexpr kj::StringPtr KERNEL_TYPES[] = {
    "autofs"_kj,     "binfmt_misc"_kj, "bpf"_kj,      "cgroup"_kj,   "cgroup2"_kj, "configfs"_kj,
    "debugfs"_kj,    "devpts"_kj,      "devtmpfs"_kj, "efivarfs"_kj, "fusectl"_kj, "hugetlbfs"_kj,
    "mqueue"_kj,     "nfsd"_kj,        "nsfs"_kj,     "proc"_kj,     "pstore"_kj,  "rpc_pipefs"_kj,
    "securityfs"_kj, "selinuxfs"_kj,   "squashfs"_kj, "sysfs"_kj,    "tracefs"_kj,
};
// Shown only where they are the root.
constexpr kj::StringPtr ROOT_ONLY_TYPES[] = {"overlay"_kj, "ramfs"_kj, "rootfs"_kj, "tmpfs"_kj};
constexpr kj::StringPtr REMOTE_TYPES[] = {"9p"_kj,    "afs"_kj, "ceph"_kj, "cifs"_kj, "glusterfs"_kj, "lustre"_kj,
                                          "ncpfs"_kj, "nfs"_kj, "nfs4"_kj, "smb3"_kj, "smbfs"_kj,     "virtiofs"_kj};

template <size_t size>
bool contains(const kj::StringPtr (&list)[size], kj::StringPtr type) {
  for (auto one : list) {
    if (one == type) return true;
  }
  return false;
}

using Text = kj::ArrayPtr<const char>;

kj::Vector<Text> fields(Text line) {
  kj::Vector<Text> result;
  size_t begin = 0;
  for (size_t i = 0; i <= line.size(); ++i) {
    if (i < line.size() && line[i] != ' ') continue;
    result.add(line.slice(begin, i));
    begin = i + 1;
  }
  return result;
}

bool isOctal(Text text) {
  for (char c : text) {
    if (c < '0' || c > '7') return false;
  }
  return true;
}

// "\040" is how the kernel writes a space, and so on.
kj::String unescape(Text text) {
  kj::Vector<char> out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\\' && i + 3 < text.size() && isOctal(text.slice(i + 1, i + 4))) {
      out.add(char(((text[i + 1] - '0') << 6) | ((text[i + 2] - '0') << 3) | (text[i + 3] - '0')));
      i += 3;
    } else {
      out.add(text[i]);
    }
  }
  return kj::heapString(out.asPtr());
}

struct Line {
  kj::String device;  // "8:1"
  Mount mount;
};

// "36 35 98:0 /root /mount/point options optional... - type source options"
kj::Maybe<Line> parseLine(Text text) {
  auto parts = fields(text);
  size_t dash = 6;
  while (dash < parts.size() && parts[dash] != "-"_kj.asArray()) ++dash;
  if (dash + 2 >= parts.size()) return nullptr;
  auto type = kj::heapString(parts[dash + 1]);
  auto mountPoint = unescape(parts[4]);
  if (!mountPoint.startsWith("/") || contains(KERNEL_TYPES, type)) return nullptr;
  if (contains(ROOT_ONLY_TYPES, type) && mountPoint != "/") return nullptr;
  bool remote = contains(REMOTE_TYPES, type) || type == "fuse" || type.startsWith("fuse.");
  return Line{kj::heapString(parts[2]), Mount{kj::mv(mountPoint), kj::mv(type), unescape(parts[dash + 2]), remote}};
}

// Whether the new line is shown: it covers an earlier one, or is of a device that is not listed yet.
void add(kj::Vector<Line>& lines, Line line) {
  for (auto& earlier : lines) {
    if (earlier.mount.mountPoint == line.mount.mountPoint) {
      earlier = kj::mv(line);
      return;
    }
  }
  for (auto& earlier : lines) {
    if (earlier.device == line.device) return;
  }
  if (lines.size() < MAX_FILE_SYSTEMS) lines.add(kj::mv(line));
}

}  // namespace

kj::Array<Mount> parseMounts(kj::StringPtr mountinfo) {
  kj::Vector<Line> lines;
  size_t begin = 0;
  for (size_t i = 0; i < mountinfo.size(); ++i) {
    if (mountinfo[i] != '\n') continue;
    KJ_IF_MAYBE (line, parseLine(mountinfo.asArray().slice(begin, i))) add(lines, kj::mv(*line));
    begin = i + 1;
  }
  auto mounts = kj::heapArrayBuilder<Mount>(lines.size());
  for (auto& line : lines) mounts.add(kj::mv(line.mount));
  return mounts.finish();
}

}  // namespace postern::guest
