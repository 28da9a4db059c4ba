#include "transport/transfer/group-commit.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "transport/transfer/content-hash.h"
#include "transport/transfer/directory-sync.h"
#include "transport/transfer/system-problem.h"

namespace postern::transfer {

namespace {

Problem badHash(kj::StringPtr why) {
  return problem(ProblemKind::BAD_HASH, kj::str(why));
}

// Bytes, or -1 with errno.
ssize_t readAll(int descriptor, kj::ArrayPtr<kj::byte> to) {
  size_t have = 0;
  while (have < to.size()) {
    ssize_t n = pread(descriptor, to.begin() + have, to.size() - have, static_cast<off_t>(have));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return -1;
    if (n == 0) break;
    have += static_cast<size_t>(n);
  }
  return static_cast<ssize_t>(have);
}

}  // namespace

void GroupCommit::add(Item item) {
  ++item.folder->waiting;
  if (!item.synced) unsyncedBytes += item.bytes;
  items.add(kj::mv(item));
}

bool GroupCommit::isFull() const {
  return items.size() >= GROUP_FILES || unsyncedBytes >= GROUP_BYTES;
}

void GroupCommit::flush() {
  sync();
  auto all = kj::mv(items);
  items = kj::Vector<Item>();
  unsyncedBytes = 0;
  for (auto& item : all) {
    auto problem = kj::mv(item.complaint);
    bool hasName = false;
    KJ_IF_MAYBE (failure, place(item)) {
      problem = kj::mv(*failure);
    } else {
      hasName = true;
    }
    owner.named(item, hasName, kj::mv(problem));
  }
}

void GroupCommit::sync() {
  size_t unsynced = 0;
  for (auto& item : items) unsynced += item.file != nullptr && !item.synced ? 1 : 0;
  if (unsynced > SYNCED_SINGLY && syncSystems()) return;
  for (auto& item : items) {
    KJ_IF_MAYBE (file, item.file) {
      if (item.synced || fsync(file->descriptor()) == 0 || errno == EINVAL) {
        item.synced = true;
      } else {
        item.lost = problemOf(errno, "be written to the disk", "");
      }
    }
  }
}

bool GroupCommit::syncSystems() {
  kj::Vector<uint64_t> done;
  for (auto& item : items) {
    KJ_IF_MAYBE (file, item.file) {
      if (item.synced) continue;
      uint64_t device = item.folder->device;
      bool isDone = false;
      for (auto each : done) isDone = isDone || each == device;
      if (isDone) continue;
      if (syncfs(file->descriptor()) != 0) return false;  // one by one will tell which it was
      done.add(device);
    }
  }
  return true;
}

kj::Maybe<Problem> GroupCommit::place(Item& item) {
  KJ_IF_MAYBE (lost, item.lost) {
    // The kernel forgets what it could not write: what it still shows of the file is not what a resume can rely on.
    KJ_IF_MAYBE (file, item.file) file->spoil();
    return kj::mv(*lost);
  }
  KJ_IF_MAYBE (file, item.file) {
    if (verify == Verify::YES && item.description.inlined) {
      KJ_IF_MAYBE (problem, compare(file->descriptor(), item.description)) return kj::mv(*problem);
    }
    KJ_IF_MAYBE (problem, maker.place(*file)) return kj::mv(*problem);
    if (item.description.hasLinks) links.remember(item.path, file->descriptor());
    return nullptr;
  }
  return links.make(maker, *item.folder, item.name, item.description.linkTo);
}

kj::Maybe<Problem> GroupCommit::compare(int descriptor, const Entry& description) {
  KJ_IF_MAYBE (hash, description.hash) {
    posix_fadvise(descriptor, 0, 0, POSIX_FADV_DONTNEED);  // it is on the disk: it is read from there
    if (readBack == nullptr) readBack = kj::heapArray<kj::byte>(INLINE_BYTES + 1);
    ssize_t bytes = readAll(descriptor, readBack);
    if (bytes < 0) return problemOf(errno, "be read again from the disk", "");
    kj::byte found[HASH_BYTES];
    hashContent(readBack.slice(0, static_cast<size_t>(bytes)), found);
    if (memcmp(found, hash->begin(), HASH_BYTES) == 0) return nullptr;
    return badHash("what is on the destination's disk is not what was sent");
  }
  return badHash("the source sent no hash of it");
}

}  // namespace postern::transfer
