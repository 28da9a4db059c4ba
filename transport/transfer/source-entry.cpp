#include "transport/transfer/source-entry.h"

#include <errno.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>

#include "protocol/transfer/limits.h"
#include "transport/transfer/system-problem.h"

namespace postern::transfer {

namespace {

// Of all attributes of one file: as many as may travel, with the longest names.
constexpr size_t NAMES_BYTES = MAX_ATTRIBUTES * (MAX_NAME_BYTES + 1);

EntryKind kindOf(mode_t mode) {
  switch (mode & S_IFMT) {
    case S_IFDIR:
      return EntryKind::DIRECTORY;
    case S_IFLNK:
      return EntryKind::SYMBOLIC_LINK;
    case S_IFIFO:
      return EntryKind::FIFO;
    case S_IFCHR:
      return EntryKind::CHARACTER_DEVICE;
    case S_IFBLK:
      return EntryKind::BLOCK_DEVICE;
    case S_IFSOCK:
      return EntryKind::SOCKET;
    default:
      return EntryKind::FILE;
  }
}

bool isDevice(EntryKind kind) {
  return kind == EntryKind::CHARACTER_DEVICE || kind == EntryKind::BLOCK_DEVICE;
}

Problem tooManyAttributes() {
  return problem(ProblemKind::UNSUPPORTED,
                 kj::str("extended attributes of more than ", MAX_ATTRIBUTE_BYTES / 1024, " KiB, or more than ",
                         MAX_ATTRIBUTES, " of them: sent without any"));
}

}  // namespace

SourceEntry::SourceEntry(const SourceOptions& options, OwnerNames& owners)
    : archive(options.archive), named(options.archive || options.listing), special(true), owners(owners) {
  KJ_IF_MAYBE (scope, options.scope) special = scope->special || options.listing;
}

Entry SourceEntry::describe(kj::StringPtr as, const struct stat& status) {
  Entry entry;
  entry.kind = kindOf(status.st_mode);
  entry.name = kj::str(as);
  entry.mode = static_cast<uint16_t>(status.st_mode & (special ? 07777 : 0777));
  entry.modifiedSeconds = status.st_mtim.tv_sec;
  entry.modifiedNanoseconds = static_cast<uint32_t>(status.st_mtim.tv_nsec);
  if (named) {
    entry.uid = status.st_uid;
    entry.gid = status.st_gid;
    entry.owner = kj::str(owners.user(status.st_uid));
    entry.group = kj::str(owners.group(status.st_gid));
  }
  if (entry.kind == EntryKind::FILE) entry.size = static_cast<uint64_t>(status.st_size);
  if (isDevice(entry.kind)) {
    entry.deviceMajor = major(status.st_rdev);
    entry.deviceMinor = minor(status.st_rdev);
  }
  return entry;
}

bool SourceEntry::takes(kj::StringPtr attribute) const {
  if (attribute.startsWith("user.") || attribute.startsWith("system.posix_acl_")) return true;
  // Labels of a security module are of this machine's own policy, and it gives new files theirs.
  return special && (attribute == "security.capability" || attribute.startsWith("trusted."));
}

kj::Maybe<Problem> SourceEntry::readAttributes(int descriptor, Entry& entry) {
  if (!archive) return nullptr;
  ssize_t length = flistxattr(descriptor, nullptr, 0);
  if (length <= 0) return nullptr;  // none, or a file system without them
  if (names == nullptr) {
    names = kj::heapArray<char>(NAMES_BYTES);
    value = kj::heapArray<kj::byte>(MAX_ATTRIBUTE_BYTES);
  }
  length = flistxattr(descriptor, names.begin(), names.size());
  if (length < 0) return errno == ERANGE ? tooManyAttributes() : problemOf(errno, "have its attributes read", "");
  size_t left = MAX_ATTRIBUTE_BYTES;
  for (const char* at = names.begin(); at < names.begin() + length; at += strlen(at) + 1) {
    kj::StringPtr name = at;
    if (!takes(name)) continue;
    ssize_t bytes = fgetxattr(descriptor, at, value.begin(), value.size());
    if (bytes < 0 && errno == ENODATA) continue;
    size_t cost = name.size() + (bytes < 0 ? 0 : static_cast<size_t>(bytes));
    if (bytes < 0 && errno != ERANGE) {
      int error = errno;
      entry.attributes.clear();
      return problemOf(error, "have its attributes read", "");
    }
    if (bytes < 0 || cost > left || entry.attributes.size() == MAX_ATTRIBUTES) {
      entry.attributes.clear();
      return tooManyAttributes();
    }
    left -= cost;
    entry.attributes.add(Attribute{kj::str(name), kj::heapArray<kj::byte>(value.slice(0, static_cast<size_t>(bytes)))});
  }
  return nullptr;
}

}  // namespace postern::transfer
