// DestinationTree: how an entry of each kind is made.
#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "protocol/transfer/limits.h"
#include "transport/transfer/destination-space.h"
#include "transport/transfer/destination-tree.h"
#include "transport/transfer/open-component.h"
#include "transport/transfer/system-problem.h"
#include "transport/transfer/unnamed-file.h"

namespace postern::transfer {

namespace {

Problem isDirectory() {
  return problem(ProblemKind::IS_DIRECTORY, kj::str("is a directory at the destination"));
}

uint64_t deviceOf(int descriptor) {
  struct stat status {};
  return fstat(descriptor, &status) == 0 ? status.st_dev : 0;
}

// The version that is there now, if it is a file that this user may read.
kj::AutoCloseFd openBase(int folder, kj::StringPtr name) {
  auto base = openComponent(folder, name, READ_FLAGS);
  struct stat status {};
  if (base != nullptr && (fstat(base, &status) != 0 || !S_ISREG(status.st_mode))) return kj::AutoCloseFd();
  return base;
}

// What stands in the way of a larger file: told before any byte of it travels.
kj::Maybe<Problem> inTheWay(const struct stat& existing, bool noClobber) {
  if (S_ISDIR(existing.st_mode)) return isDirectory();
  if (noClobber) {
    return problem(ProblemKind::EXISTS, kj::str("exists at the destination, and stays as it is"));
  }
  return nullptr;
}

}  // namespace

kj::Maybe<Problem> DestinationTree::directory(Arrival& arrival) {
  int folder = arrival.folder.descriptor;
  bool made = mkdirat(folder, arrival.name.cStr(), 0700) == 0;
  if (!made && errno != EEXIST) return problemOf(errno, "be made", "");
  auto opened = openDirectory(folder, arrival.name);
  if (opened == nullptr) {
    int error = errno;
    if (error != ENOTDIR && error != ELOOP) return problemOf(error, "be opened", "");
    return problem(ProblemKind::NOT_DIRECTORY, kj::str("exists at the destination and is no directory"));
  }
  if (made) arrival.folder.touched = true;
  auto entered = kj::refcounted<DestinationFolder>();
  entered->device = deviceOf(opened);
  entered->descriptor = kj::mv(opened);
  entered->path = kj::mv(arrival.path);
  entered->scopePath = kj::mv(arrival.scopePath);
  entered->entry = arrival.number;
  entered->made = made;
  done(entered->path, arrival.entry);
  entered->description = kj::mv(arrival.entry);
  stack.add(kj::mv(entered));
  return nullptr;
}

void DestinationTree::enterUnusable(Arrival& arrival, const Problem& why) {
  auto entered = kj::refcounted<DestinationFolder>();
  entered->lacks = copy(why);
  entered->path = kj::mv(arrival.path);
  entered->scopePath = kj::mv(arrival.scopePath);
  stack.add(kj::mv(entered));
}

kj::Maybe<Problem> DestinationTree::smallFile(Arrival& arrival, kj::ArrayPtr<const kj::byte> content) {
  auto opened = maker.open(arrival.folder, arrival.name, IfInterrupted::GONE, false);
  if (opened.is<Problem>()) return kj::mv(opened.get<Problem>());
  auto& file = opened.get<NewFile>();
  if (int error = writeAll(file.descriptor(), content)) return problemOf(error, "be written", "");
  summary.sentBytes += content.size();
  auto complaint = metadata.apply(file.descriptor(), arrival.entry);
  group.add({arrival.number, kj::addRef(arrival.folder), kj::mv(arrival.path), kj::mv(arrival.name),
             kj::mv(arrival.entry), kj::mv(file), content.size(), false, kj::mv(complaint)});
  return nullptr;
}

void DestinationTree::hardLink(Arrival& arrival) {
  group.add(
      {arrival.number, kj::addRef(arrival.folder), kj::mv(arrival.path), kj::mv(arrival.name), kj::mv(arrival.entry)});
}

kj::Maybe<Problem> DestinationTree::largeFile(Arrival& arrival) {
  auto& entry = arrival.entry;
  int folder = arrival.folder.descriptor;
  if (open.size() >= MAX_OPEN) return problem(ProblemKind::TOO_MANY, kj::str("too many files are open at one time"));
  struct stat existing {};
  bool exists = fstatat(folder, arrival.name.cStr(), &existing, AT_SYMLINK_NOFOLLOW) == 0;
  if (exists) {
    KJ_IF_MAYBE (problem, inTheWay(existing, options.noClobber)) return kj::mv(*problem);
  }
  bool keeps = entry.size >= DELTA_MIN_BYTES;
  auto opened = maker.open(arrival.folder, arrival.name, keeps ? IfInterrupted::KEPT : IfInterrupted::GONE,
                           keeps && options.resume);
  if (opened.is<Problem>()) return kj::mv(opened.get<Problem>());
  auto& file = opened.get<NewFile>();
  uint64_t freed = exists && S_ISREG(existing.st_mode) ? uint64_t(existing.st_size) : 0;
  struct stat partial {};
  if (fstat(file.descriptor(), &partial) == 0) freed += uint64_t(partial.st_blocks) * 512;
  KJ_IF_MAYBE (bytes, single) {
    KJ_IF_MAYBE (problem, lacksSpace(folder, *bytes, 0, freed)) return kj::mv(*problem);
  }

  kj::AutoCloseFd base;
  if (entry.wantsBase && freed > 0) base = openBase(folder, arrival.name);
  Opened message = {arrival.number, file.isResumed(), base != nullptr};
  int descriptors[] = {file.descriptor(), base.get()};
  conversation.put(message, kj::arrayPtr(descriptors, message.hasBase ? 2 : 1));
  ++arrival.folder.waiting;
  open.add(kj::heap<OpenFile>(OpenFile{arrival.number, kj::addRef(arrival.folder), kj::mv(arrival.path),
                                       kj::mv(arrival.name), kj::mv(entry), kj::mv(file), kj::mv(base)}));
  return nullptr;
}

kj::Maybe<Problem> DestinationTree::special(Arrival& arrival) {
  auto& entry = arrival.entry;
  int folder = arrival.folder.descriptor;
  bool isLink = entry.kind == EntryKind::SYMBOLIC_LINK;
  bool isFifo = entry.kind == EntryKind::FIFO;
  if (!isLink && !options.archive) {
    return problem(ProblemKind::UNSUPPORTED, kj::str(isFifo ? "is a FIFO" : "is a device", ", which is made with -a"));
  }
  if (!isLink && !isFifo && !metadata.special()) {
    return problem(ProblemKind::UNSUPPORTED, kj::str("is a device, which is made where the policy says special"));
  }
  mode_t type = isFifo ? S_IFIFO : entry.kind == EntryKind::BLOCK_DEVICE ? S_IFBLK : S_IFCHR;
  kj::Maybe<Problem> complaint;
  auto failure = maker.make(
      arrival.folder, arrival.name,
      [&](kj::StringPtr as) {
        int result = isLink ? symlinkat(entry.target.cStr(), folder, as.cStr())
                            : mknodat(folder, as.cStr(), type | 0600,
                                      isFifo ? 0 : makedev(entry.deviceMajor, entry.deviceMinor));
        return result == 0 ? 0 : errno;
      },
      [&](kj::StringPtr as) { complaint = metadata.applyTo(folder, as, entry); });
  KJ_IF_MAYBE (problem, failure) return kj::mv(*problem);
  done(arrival.path, entry);
  return complaint;
}

kj::Maybe<Problem> DestinationTree::commit(Commit commit) {
  if (commit.entry >= entries) {
    return problem(ProblemKind::PROTOCOL, kj::str("the other end broke a rule: what is committed came before"));
  }
  for (size_t i = 0; i < open.size(); ++i) {
    if (open[i]->number != commit.entry) continue;
    auto file = kj::mv(open[i]);
    for (size_t j = i + 1; j < open.size(); ++j) open[j - 1] = kj::mv(open[j]);
    open.removeLast();
    auto folder = kj::addRef(*file->folder);
    KJ_SWITCH_ONEOF(commit.outcome) {
      KJ_CASE_ONEOF(done, Whole) whole(kj::mv(file), commit.synced);
      KJ_CASE_ONEOF(done, Unchanged) unchanged(*file);
      KJ_CASE_ONEOF(problem, Problem) {
        file->file.spoil();
        report(file->number, file->path, problem);
      }
      KJ_CASE_ONEOF(kept, Kept) {
        report(file->number, file->path,
               problem(ProblemKind::FAILED, kj::str("was interrupted; --resume goes on with what there is")));
      }
    }
    file = nullptr;  // what is left of it goes before its folder can
    settled(*folder);
    if (group.isFull()) group.flush();
    return nullptr;
  }
  return nullptr;  // it had failed here
}

void DestinationTree::whole(kj::Own<OpenFile> file, bool synced) {
  struct stat status {};
  if (fstat(file->file.descriptor(), &status) != 0 ||
      (!file->entry.stream && uint64_t(status.st_size) != file->entry.size)) {
    file->file.spoil();
    report(file->number, file->path, problem(ProblemKind::FAILED, kj::str("has not the size that was announced")));
    return;
  }
  file->entry.size = uint64_t(status.st_size);
  if (file->entry.stream) {
    KJ_IF_MAYBE (problem, overQuota(file->entry.size, 0)) {
      file->file.spoil();
      report(file->number, file->path, *problem);
      return;
    }
  }
  auto complaint = metadata.apply(file->file.descriptor(), file->entry);
  group.add({file->number, kj::mv(file->folder), kj::mv(file->path), kj::mv(file->name), kj::mv(file->entry),
             kj::mv(file->file), uint64_t(status.st_size), synced, kj::mv(complaint)});
}

void DestinationTree::unchanged(OpenFile& file) {
  file.file.spoil();
  struct stat base {};
  struct stat named {};
  bool isThere = file.base != nullptr && fstat(file.base, &base) == 0 &&
                 fstatat(file.folder->descriptor, file.name.cStr(), &named, AT_SYMLINK_NOFOLLOW) == 0 &&
                 base.st_dev == named.st_dev && base.st_ino == named.st_ino &&
                 uint64_t(named.st_size) == file.entry.size;
  if (!isThere) {
    report(file.number, file.path, problem(ProblemKind::CHANGED, kj::str("was replaced at the destination meanwhile")));
    return;
  }
  auto complaint = metadata.apply(file.base, file.entry);
  if (fsync(file.base) != 0 && complaint == nullptr) complaint = problemOf(errno, "be written to the disk", "");
  if (file.entry.hasLinks) links.remember(file.path, file.base);
  ++summary.unchanged;
  done(file.path, file.entry);
  KJ_IF_MAYBE (problem, complaint) report(file.number, file.path, *problem);
}

void DestinationTree::named(GroupCommit::Item& item, bool hasName, kj::Maybe<Problem> problem) {
  if (hasName) done(item.path, item.description);
  KJ_IF_MAYBE (p, problem) report(item.entry, item.path, *p);
  item.file = nullptr;
  settled(*item.folder);
}

}  // namespace postern::transfer
