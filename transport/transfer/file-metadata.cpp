#include "transport/transfer/file-metadata.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "protocol/transfer/limits.h"
#include "transport/transfer/open-component.h"
#include "transport/transfer/system-problem.h"

namespace postern::transfer {

namespace {

struct Times {
  timespec both[2];
};

Times timesOf(const Entry& entry) {
  return {{{0, UTIME_OMIT}, {entry.modifiedSeconds, static_cast<long>(entry.modifiedNanoseconds)}}};
}

// A directory that may not be read is open as a handle alone (O_PATH), which these calls refuse.
bool setMode(int descriptor, mode_t mode) {
  if (fchmod(descriptor, mode) == 0) return true;
  return errno == EBADF && chmod(descriptorPath(descriptor).cStr(), mode) == 0;
}
bool setTimes(int descriptor, const Entry& entry) {
  auto times = timesOf(entry);
  if (futimens(descriptor, times.both) == 0) return true;
  return errno == EBADF && utimensat(AT_FDCWD, descriptorPath(descriptor).cStr(), times.both, 0) == 0;
}

bool has(const Entry& entry, kj::StringPtr attribute) {
  for (auto& each : entry.attributes) {
    if (each.name == attribute) return true;
  }
  return false;
}

mode_t typeOf(EntryKind kind) {
  if (kind == EntryKind::SYMBOLIC_LINK) return S_IFLNK;
  if (kind == EntryKind::FIFO) return S_IFIFO;
  return kind == EntryKind::BLOCK_DEVICE ? S_IFBLK : S_IFCHR;
}

// The first counts.
void note(kj::Maybe<Problem>& first, Problem&& problem) {
  if (first == nullptr) first = kj::mv(problem);
}

Problem notSet(int error, kj::StringPtr what) {
  auto why = problemOf(error, kj::str("be given its ", what), "");
  why.detail = kj::str(why.detail, "; the rest of it is there");
  return why;
}

}  // namespace

FileMetadata::Ids FileMetadata::ids(const Entry& entry) {
  Ids ids = {entry.uid, entry.gid};
  if (entry.owner.size() > 0) ids.uid = owners.userByName(entry.owner).orDefault(entry.uid);
  if (entry.group.size() > 0) ids.gid = owners.groupByName(entry.group).orDefault(entry.gid);
  return ids;
}

bool FileMetadata::takes(kj::StringPtr attribute) const {
  return attribute.startsWith("user.") || attribute.startsWith("system.posix_acl_") || options.special;
}

kj::Maybe<Problem> FileMetadata::attributes(int descriptor, const Entry& entry) {
  removeOthers(descriptor, entry);
  kj::Maybe<Problem> first;
  for (auto& each : entry.attributes) {
    if (!takes(each.name)) continue;
    if (fsetxattr(descriptor, each.name.cStr(), each.value.begin(), each.value.size(), 0) != 0) {
      note(first, notSet(errno, kj::str("attribute ", each.name)));
    }
  }
  return first;
}

void FileMetadata::removeOthers(int descriptor, const Entry& entry) {
  if (flistxattr(descriptor, nullptr, 0) <= 0) return;
  if (names == nullptr) names = kj::heapArray<char>(MAX_ATTRIBUTES * (MAX_NAME_BYTES + 1));
  ssize_t length = flistxattr(descriptor, names.begin(), names.size());
  for (const char* at = names.begin(); length > 0 && at < names.begin() + length; at += strlen(at) + 1) {
    kj::StringPtr name = at;
    bool replaced = name.startsWith("user.") || name.startsWith("system.posix_acl_");
    if (replaced && !has(entry, name)) fremovexattr(descriptor, at);
  }
}

// T84
kj::Maybe<Problem> FileMetadata::apply(int descriptor, const Entry& entry) {
  kj::Maybe<Problem> first;
  mode_t mode = entry.mode & (options.special ? 07777 : 0777);
  if (options.archive) {
    if (options.keepOwner) {
      auto to = ids(entry);
      if (fchownat(descriptor, "", to.uid, to.gid, AT_EMPTY_PATH) != 0) {
        note(first, notSet(errno, "owner"));
        mode &= 0777;  // a set-id bit means nothing good with another owner
      }
    }
    KJ_IF_MAYBE (problem, attributes(descriptor, entry)) note(first, kj::mv(*problem));
  }
  if (!setMode(descriptor, mode)) note(first, notSet(errno, "mode"));
  if (!setTimes(descriptor, entry)) note(first, notSet(errno, "time"));
  return first;
}

kj::Maybe<Problem> FileMetadata::applyTo(int folder, kj::StringPtr name, const Entry& entry) {
  kj::Maybe<Problem> first;
  // By a handle: it is the thing itself, whatever somebody puts in its place, and nothing that was there before.
  auto handle = openComponent(folder, name, O_PATH);
  struct stat status {};
  if (handle == nullptr || fstat(handle, &status) != 0) return notSet(errno, "mode");
  if ((status.st_mode & S_IFMT) != typeOf(entry.kind) || status.st_nlink != 1) {
    return problem(ProblemKind::CHANGED, kj::str("was replaced by somebody else while it was made"));
  }
  mode_t mode = entry.mode & (options.special ? 07777 : 0777);
  if (options.archive && options.keepOwner) {
    auto to = ids(entry);
    if (fchownat(handle, "", to.uid, to.gid, AT_EMPTY_PATH) != 0) {
      note(first, notSet(errno, "owner"));
      mode &= 0777;
    }
  }
  if (entry.kind != EntryKind::SYMBOLIC_LINK && !setMode(handle, mode)) note(first, notSet(errno, "mode"));
  auto times = timesOf(entry);
  // By the name where the kernel takes no handle (before 5.8): the time alone may then be somebody else's.
  if (utimensat(handle, "", times.both, AT_EMPTY_PATH) != 0 &&
      (errno != EINVAL || utimensat(folder, name.cStr(), times.both, AT_SYMLINK_NOFOLLOW) != 0)) {
    note(first, notSet(errno, "time"));
  }
  return first;
}

}  // namespace postern::transfer
