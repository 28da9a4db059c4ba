#include "transport/transfer/source-sender.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/uio.h>
#include <time.h>

#include "protocol/transfer/limits.h"
#include "transport/printable.h"
#include "transport/transfer/content-hash.h"
#include "transport/transfer/open-component.h"
#include "transport/transfer/system-problem.h"

namespace postern::transfer {

namespace {

bool sameVersion(const struct stat& a, const struct stat& b) {
  return a.st_size == b.st_size && a.st_mtim.tv_sec == b.st_mtim.tv_sec && a.st_mtim.tv_nsec == b.st_mtim.tv_nsec &&
         a.st_ctim.tv_sec == b.st_ctim.tv_sec && a.st_ctim.tv_nsec == b.st_ctim.tv_nsec;
}

// 0: `to` is full and the file has no more than that. -1: it has less or more. Otherwise errno.
int readWhole(int descriptor, kj::ArrayPtr<kj::byte> to) {
  for (;;) {
    char beyond;
    iovec parts[] = {{to.begin(), to.size()}, {&beyond, 1}};
    ssize_t n = readv(descriptor, parts, 2);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return errno;
    if (static_cast<size_t>(n) > to.size()) return -1;
    if (n == 0) return to.size() == 0 ? 0 : -1;
    if (static_cast<size_t>(n) == to.size()) return 0;  // a regular file gives all it has: there was nothing beyond
    to = to.slice(static_cast<size_t>(n), to.size());
  }
}

// Whether a change from now on gets another ctime: it is taken from a clock that stands still for some milliseconds.
bool isOld(const struct stat& status) {
  timespec now{};
  clock_gettime(CLOCK_REALTIME_COARSE, &now);
  auto& changed = status.st_ctim;
  if (changed.tv_sec > now.tv_sec + 1) return true;  // of another clock: waiting does not help
  return changed.tv_sec < now.tv_sec || (changed.tv_sec == now.tv_sec && changed.tv_nsec < now.tv_nsec);
}

// The status when the file has been left alone for a tick, so that whatever happens to it afterwards can be seen. 0, or
// errno; -1: it is written to all the time.
int statusOnceOld(int descriptor, struct stat& status) {
  constexpr int TICK_MILLISECONDS = 11;
  constexpr int MOST_TICKS = 3;
  for (int i = 0; fstat(descriptor, &status) == 0; ++i) {
    if (isOld(status)) return 0;
    if (i == MOST_TICKS) return -1;
    poll(nullptr, 0, TICK_MILLISECONDS);
  }
  return errno;
}

Problem changed() {
  return problem(ProblemKind::CHANGED, kj::str("changed while it was read; copy it again when nobody writes to it"));
}

Problem unsupported(unsigned char type) {
  kj::StringPtr kind = type == DT_FIFO   ? "a FIFO"_kj
                       : type == DT_SOCK ? "a socket"_kj
                       : type == DT_LNK  ? "a symbolic link"_kj
                                         : "a device"_kj;
  if (type == DT_SOCK) return problem(ProblemKind::UNSUPPORTED, kj::str("is a socket, which is not copied"));
  return problem(ProblemKind::UNSUPPORTED, kj::str("is ", kind, ", which is copied with -a alone"));
}

}  // namespace

SourceSender::SourceSender(SourceTree& tree, const SourceOptions& options, const Totals& announced,
                           SourceConversation& conversation, SourceListener& listener, OwnerNames& owners)
    : tree(tree),
      options(options),
      conversation(conversation),
      listener(listener),
      reader(options, owners),
      entriesLeft(announced.files + announced.directories + ANNOUNCED_SLACK_ENTRIES),
      failuresLeft(entriesLeft),
      bytesLeft(announced.bytes + ANNOUNCED_SLACK_BYTES) {
  // What was counted is within the quotas; what has grown since has to be, too.
  KJ_IF_MAYBE (scope, options.scope) {
    if (scope->maxFiles > 0) entriesLeft = kj::min(entriesLeft, scope->maxFiles);
    if (scope->maxBytes > 0) bytesLeft = kj::min(bytesLeft, scope->maxBytes);
  }
}

bool SourceSender::takes(uint64_t bytes) {
  if (entriesLeft == 0 || bytes > bytesLeft) return false;
  --entriesLeft;
  bytesLeft -= bytes;
  return true;
}

bool SourceSender::grown(const SourcePlace& place) {
  return failed(place, problem(ProblemKind::CHANGED,
                               kj::str("there is much more than when it was counted; copy again what is new")));
}

bool SourceSender::failed(const SourcePlace& place, Problem problem) {
  listener.failed(tree.shown(place), problem);
  if (failuresLeft-- == 0) {
    ended = transfer::problem(ProblemKind::TOO_MANY, kj::str(tree.shown(place), ": too many entries failed"));
    return false;
  }
  return conversation.put(Forward(EntryFailed{kj::str(place.as), kj::mv(problem)}));
}

bool SourceSender::directory(const SourcePlace& place, const struct stat& status, int descriptor) {
  if (!takes(0)) {
    // The walk enters it all the same: there is no way around its leave().
    ended = problem(ProblemKind::TOO_MANY, kj::str(tree.shown(place), ": there is much more than when it was counted"));
    return false;
  }
  auto entry = reader.describe(place.as, status);
  if (descriptor >= 0) {
    KJ_IF_MAYBE (problem, reader.readAttributes(descriptor, entry)) {
      if (!failed(place, kj::mv(*problem))) return false;
    }
  }
  return conversation.put(Forward(kj::mv(entry)));
}

bool SourceSender::leaf(const SourcePlace& place, unsigned char type) {
  if (type == DT_REG && !options.listing) return file(place);
  bool taken = options.listing || type == DT_LNK ? options.listing || options.recursive || options.archive
                                                 : options.archive && type != DT_SOCK;
  if (!taken) return failed(place, unsupported(type));
  return other(place, type);
}

bool SourceSender::file(const SourcePlace& place) {
  kj::AutoCloseFd descriptor;
  if (place.follow) {
    descriptor = kj::AutoCloseFd(openat(place.folder, place.name.cStr(), READ_FLAGS | O_CLOEXEC));
  } else {
    descriptor = openComponent(place.folder, place.name, READ_FLAGS);
  }
  struct stat status {};
  if (int error = descriptor == nullptr ? errno : statusOnceOld(descriptor, status)) {
    if (error == ELOOP || error < 0) return failed(place, changed());
    if (error == ENOENT) return failed(place, problem(ProblemKind::VANISHED, kj::str("has vanished meanwhile")));
    return failed(place, problemOf(error, "be read", ""));
  }
  if (!S_ISREG(status.st_mode)) return failed(place, changed());
  auto entry = reader.describe(place.as, status);
  if (options.archive && status.st_nlink > 1) {
    auto id = FileId::of(status);
    KJ_IF_MAYBE (first, links.find(id)) {
      entry.kind = EntryKind::HARD_LINK;
      entry.size = 0;
      size_t begin = 0;
      for (size_t end = 0; end <= first->size(); ++end) {
        if (end < first->size() && (*first)[end] != '/') continue;
        entry.linkTo.add(kj::str(first->slice(begin, end)));
        begin = end + 1;
      }
      return takes(0) ? conversation.put(Forward(kj::mv(entry))) : grown(place);
    }
  }
  KJ_IF_MAYBE (problem, reader.readAttributes(descriptor, entry)) {
    if (!failed(place, kj::mv(*problem))) return false;
  }
  return content(place, descriptor, status, kj::mv(entry));
}

bool SourceSender::content(const SourcePlace& place, int descriptor, const struct stat& status, Entry entry) {
  if (!takes(entry.size)) return grown(place);
  if (options.archive && status.st_nlink > 1) {
    entry.hasLinks = links.remember(FileId::of(status), tree.sentPath(place));
  }
  if (entry.size <= INLINE_BYTES) return inlined(place, descriptor, status, kj::mv(entry));
  entry.wantsBase = options.wantsBase && entry.size >= DELTA_MIN_BYTES;
  return conversation.put(Forward(kj::mv(entry)), descriptor);
}

// T85
bool SourceSender::inlined(const SourcePlace& place, int descriptor, const struct stat& before, Entry entry) {
  size_t size = entry.size;
  entry.inlined = true;
  if (options.verify) {
    auto hash = kj::heapArray<kj::byte>(HASH_BYTES);
    memset(hash.begin(), 0, hash.size());  // its place; it is known when the content was read
    entry.hash = kj::mv(hash);
  }
  bool hasLinks = entry.hasLinks;
  auto space = conversation.beginInlined(Forward(kj::mv(entry)), size);
  int error = readWhole(descriptor, space.content);
  struct stat after {};
  if (error == 0 && fstat(descriptor, &after) != 0) error = errno;
  if (error == 0 && !sameVersion(before, after)) error = -1;
  if (error != 0) {
    if (hasLinks) links.forget(FileId::of(before));
    return failed(place, error < 0 ? changed() : problemOf(error, "be read", ""));
  }
  if (options.verify) hashContent(space.content, space.hash);
  return conversation.putInlined(space.content);
}

bool SourceSender::other(const SourcePlace& place, unsigned char type) {
  struct stat status {};
  if (int error = statusOf(place, status)) return failed(place, problemOf(error, "be read", ""));
  if (typeOf(status) != type) return failed(place, changed());
  if (!takes(0)) return grown(place);
  auto entry = reader.describe(place.as, status);
  if (type == DT_LNK) return symbolicLink(place, kj::mv(entry));
  return conversation.put(Forward(kj::mv(entry)));
}

bool SourceSender::symbolicLink(const SourcePlace& place, Entry entry) {
  KJ_IF_MAYBE (target, readLink(place.folder, place.name)) {
    if (target->size() == 0 || target->size() > MAX_PATH_BYTES) {
      return failed(place, problemOf(ENAMETOOLONG, "be sent", ""));
    }
    entry.target = kj::mv(*target);
    return conversation.put(Forward(kj::mv(entry)));
  }
  return failed(place, problemOf(errno, "be read", ""));
}

}  // namespace postern::transfer
