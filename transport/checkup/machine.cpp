#include "transport/checkup/machine.h"

#include <errno.h>
#include <pwd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "transport/connection.h"
#include "transport/sandbox.h"
#include "transport/transfer/open-component.h"

namespace postern {

namespace {

// Below these an audit log or a state file is about to fail, or fails.
constexpr uint64_t SCARCE_BYTES = uint64_t(64) << 20;
constexpr uint64_t NO_BYTES = uint64_t(256) << 10;

constexpr kj::StringPtr WORKS_WITH_LESS = "it works with less: "_kj;

kj::String modeLetters(mode_t bits) {
  kj::Vector<char> who;
  if ((bits & 0070) != 0) who.add('g');
  if ((bits & 0007) != 0) who.add('o');
  bool onlyWriting = (bits & 055) == 0;
  return kj::str(who.asPtr(), onlyWriting ? "-w" : "=");
}

kj::String folderAbove(kj::StringPtr path) {
  auto slash = path.findLast('/').orDefault(0);
  return slash == 0 ? kj::str("/") : kj::heapString(path.slice(0, slash));
}

}  // namespace

void lookAtKernel(Checkup& out) {
  bool complete = true;
  if (landlockVersion() < 1) {
    complete = false;
    out.warning(kj::str(WORKS_WITH_LESS, "this kernel has no Landlock; seccomp alone keeps its processes from files"),
                "a kernel of 5.13 or later, with landlock in the parameter lsm=");
  }
  if (!transfer::kernelHasOpenat2()) {
    complete = false;
    out.warning(kj::str(WORKS_WITH_LESS, "this kernel has no openat2; each component of a path is opened by itself"),
                "a kernel of 5.6 or later");
  }
  if (complete) out.ok("it has Landlock and openat2");
}

bool lookAtOwner(const OwnedPath& place, Checkup& out) {
  struct stat about;
  if (lstat(place.path.cStr(), &about) != 0) return false;
  auto word = shellWord(place.path);
  KJ_IF_MAYBE (owner, place.owner) {
    if (about.st_uid != *owner && about.st_uid != 0) {
      out.wrong(kj::str(place.path, ": it belongs to ", userName(about.st_uid), ", not to ", userName(*owner)),
                kj::str("chown ", userName(*owner), ' ', word));
      return true;
    }
  }
  auto excess = about.st_mode & place.forbidden;
  if (excess == 0) return false;
  out.wrong(
      kj::str(place.path, ": others than its owner ", (excess & 055) == 0 ? "may write to it" : "have rights to it"),
      kj::str("chmod ", modeLetters(place.forbidden), ' ', word));
  return true;
}

bool lookAtSpace(kj::StringPtr folder, Checkup& out) {
  struct statvfs about;
  if (statvfs(folder.cStr(), &about) != 0) {
    if (errno != ENOENT || folder.size() <= 1) return false;
    return lookAtSpace(folderAbove(folder), out);
  }
  auto word = shellWord(folder);
  if ((about.f_flag & ST_RDONLY) != 0) {
    out.wrong(kj::str(folder, ": its file system is read-only"), kj::str("mount -o remount,rw ", word));
    return true;
  }
  auto free = uint64_t(about.f_bavail) * about.f_frsize;
  if (free >= SCARCE_BYTES) return false;
  auto text = kj::str(folder, ": ", free >> 10, " KiB are left on its disk");
  auto remedy = kj::str("df -h ", word);
  free < NO_BYTES ? out.wrong(text, remedy) : out.warning(text, remedy);
  return true;
}

kj::String userName(uid_t uid) {
  auto* entry = getpwuid(uid);
  return entry == nullptr ? kj::str(uid) : kj::str(entry->pw_name);
}

}  // namespace postern
