#include "transport/transfer/destination-tree.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/transfer/limits.h"
#include "transport/transfer/destination-space.h"
#include "transport/transfer/open-component.h"
#include "transport/transfer/partial-file.h"
#include "transport/transfer/quota.h"
#include "transport/transfer/system-problem.h"

namespace postern::transfer {

namespace {

FileMetadata::Options metadataOptions(const DestinationOptions& options) {
  bool special = options.special;
  KJ_IF_MAYBE (scope, options.scope) special = scope->special;
  return {options.archive, options.archive && options.keepOwner, special};
}

uint64_t deviceOf(int descriptor) {
  struct stat status {};
  return fstat(descriptor, &status) == 0 ? status.st_dev : 0;
}

// For people: of what is over the bound the end alone.
kj::StringPtr shortened(kj::StringPtr path) {
  return path.size() <= MAX_PATH_BYTES ? path : path.slice(path.size() - MAX_PATH_BYTES);
}

kj::String joined(kj::StringPtr folder, kj::StringPtr name) {
  return kj::str(folder, folder.size() == 0 || folder.endsWith("/") ? "" : "/", name);
}

}  // namespace

DestinationTree::DestinationTree(kj::AutoCloseFd folder, const DestinationOptions& options,
                                 DestinationListener& listener, DestinationConversation& conversation,
                                 OwnerNames& owners)
    : options(options),
      listener(listener),
      conversation(conversation),
      metadata(metadataOptions(options), owners),
      maker(options.noClobber ? Existing::STAYS : Existing::REPLACE),
      links(folder, options.into ? ""_kj : options.name),
      group(maker, links, options.verify ? GroupCommit::Verify::YES : GroupCommit::Verify::NO, *this) {
  auto root = kj::refcounted<DestinationFolder>();
  root->device = deviceOf(folder);
  root->descriptor = kj::mv(folder);
  root->scopePath = kj::str(options.scopePath);
  stack.add(kj::mv(root));
}

kj::Maybe<Problem> DestinationTree::announced(const Totals& totals) {
  if (!options.into && totals.tops > 1) {
    return problem(ProblemKind::NOT_DIRECTORY, kj::str("several sources go into a directory, and there is none"));
  }
  KJ_IF_MAYBE (scope, options.scope) {
    KJ_IF_MAYBE (problem, transfer::overQuota(*scope, totals)) return kj::mv(*problem);
  }
  if (totals.files == 1 && totals.directories == 0) {
    // It is judged when it comes: what is there of it already may be all that is needed.
    single = totals.bytes - totals.holes;
    return nullptr;
  }
  return lacksSpace(stack[0]->descriptor, totals.bytes - totals.holes, totals.files + totals.directories, 0);
}

void DestinationTree::report(uint64_t number, kj::StringPtr path, const Problem& problem) {
  ++summary.failures;
  listener.failed(path, atDestination(problem));
  conversation.put(Backward(DestinationFailed{number, kj::str(shortened(path)), copy(problem)}));
}

void DestinationTree::failedAtSource(const EntryFailed& failed) {
  ++summary.failures;
  listener.failed(joined(stack.back()->path, failed.name), failed.problem);
}

void DestinationTree::done(kj::StringPtr path, const Entry& entry) {
  if (entry.kind == EntryKind::DIRECTORY) {
    ++summary.directories;
  } else {
    ++summary.files;
    summary.bytes += entry.size;
  }
  listener.made(path, entry);
}

DestinationTree::Arrival DestinationTree::arrival(Entry entry) {
  auto& folder = *stack.back();
  auto path = joined(folder.path, entry.name);
  auto name = kj::str(stack.size() == 1 && !options.into ? options.name : entry.name);
  auto scopePath = options.scope == nullptr ? kj::String() : joined(folder.scopePath, name);
  return {entries++, folder, kj::mv(path), kj::mv(name), kj::mv(scopePath), kj::mv(entry)};
}

void DestinationTree::entry(Entry entry, kj::ArrayPtr<const kj::byte> content) {
  auto came = arrival(kj::mv(entry));
  auto why = refusal(came);
  if (why == nullptr) why = take(came, content);
  KJ_IF_MAYBE (problem, why) {
    report(came.number, came.path, *problem);
    if (came.entry.kind == EntryKind::DIRECTORY) enterUnusable(came, *problem);
  }
  if (group.isFull()) group.flush();
}

// T87
kj::Maybe<Problem> DestinationTree::refusal(const Arrival& arrival) {
  KJ_IF_MAYBE (problem, overQuota(arrival.entry)) return kj::mv(*problem);
  KJ_IF_MAYBE (scope, options.scope) {
    auto verdict = scope->decide(arrival.scopePath);
    if (!verdict.allowed) return deniedBy(verdict.rule);
  }
  if (arrival.entry.kind != EntryKind::DIRECTORY && isPartialName(arrival.name)) {
    return problem(ProblemKind::UNSUPPORTED, kj::str("has the name of a file that is not whole yet, and would be mixed "
                                                     "up with one; give it another name, or remove it"));
  }
  KJ_IF_MAYBE (why, arrival.folder.lacks) {
    return Problem{why->kind, kj::str("the directory that it is in could not be made"), kj::str(why->rule)};
  }
  return nullptr;
}

kj::Maybe<Problem> DestinationTree::overQuota(const Entry& entry) {
  bytes += kj::min(entry.size, MAX_FILE_BYTES - bytes);
  return overQuota(bytes, static_cast<uint32_t>(stack.size()) - (entry.kind == EntryKind::DIRECTORY ? 0 : 1));
}

kj::Maybe<Problem> DestinationTree::overQuota(uint64_t bytes, uint32_t deepest) const {
  KJ_IF_MAYBE (scope, options.scope) {
    Totals soFar;
    soFar.files = entries;
    soFar.bytes = bytes;
    soFar.deepest = deepest;
    return transfer::overQuota(*scope, soFar);
  }
  return nullptr;
}

// T87
kj::Maybe<Problem> DestinationTree::streamOverQuota() {
  if (open.empty() || !open[0]->entry.stream) return nullptr;  // a transfer with a stream has nothing else
  struct stat status {};
  if (fstat(open[0]->file.descriptor(), &status) != 0) return nullptr;
  auto problem = overQuota(uint64_t(status.st_size), 0);
  KJ_IF_MAYBE (p, problem) {
    open[0]->file.spoil();
    report(open[0]->number, open[0]->path, *p);
  }
  return problem;
}

kj::Maybe<Problem> DestinationTree::take(Arrival& arrival, kj::ArrayPtr<const kj::byte> content) {
  switch (arrival.entry.kind) {
    case EntryKind::FILE:
      return arrival.entry.inlined ? smallFile(arrival, content) : largeFile(arrival);
    case EntryKind::DIRECTORY:
      return directory(arrival);
    case EntryKind::HARD_LINK:
      hardLink(arrival);
      return nullptr;
    case EntryKind::SYMBOLIC_LINK:
    case EntryKind::FIFO:
    case EntryKind::CHARACTER_DEVICE:
    case EntryKind::BLOCK_DEVICE:
      return special(arrival);
    case EntryKind::SOCKET:
      break;
  }
  return problem(ProblemKind::UNSUPPORTED, kj::str("is a socket, which is not made"));
}

void DestinationTree::leave() {
  auto folder = kj::mv(stack.back());
  stack.removeLast();
  folder->left = true;
  if (folder->waiting == 0) finishFolder(*folder);
}

void DestinationTree::settled(DestinationFolder& folder) {
  KJ_ASSERT(folder.waiting > 0);
  if (--folder.waiting == 0 && folder.left) finishFolder(folder);
}

void DestinationTree::finishFolder(DestinationFolder& folder) {
  if (folder.descriptor == nullptr) return;
  if (folder.made || options.archive) {
    KJ_IF_MAYBE (problem, metadata.apply(folder.descriptor, folder.description)) {
      report(folder.entry, folder.path, *problem);
    }
  }
  if (folder.made || folder.touched) {
    directories.add(kj::mv(folder.descriptor), folder.device);
  } else {
    folder.descriptor = nullptr;
  }
}

Progress DestinationTree::progress(uint64_t entriesSeen) const {
  // What comes before the first that is not done.
  uint64_t until = entriesSeen;
  if (!group.isEmpty()) until = kj::min(until, group.firstEntry());
  if (!open.empty()) until = kj::min(until, open.front()->number);
  return {until, summary.bytes};
}

uint64_t DestinationTree::openBytes() const {
  uint64_t bytes = 0;
  for (auto& file : open) {
    struct stat status {};
    if (fstat(file->file.descriptor(), &status) != 0) continue;
    bytes += kj::min(uint64_t(status.st_size), uint64_t(status.st_blocks) * 512);
  }
  return bytes;
}

Summary DestinationTree::finish() {
  KJ_REQUIRE(stack.size() == 1 && open.empty(), "not everything was left or committed");
  group.flush();
  auto& root = *stack[0];
  if (root.touched) directories.add(kj::mv(root.descriptor), root.device);
  int error = directories.sync();
  if (error != 0) {
    ++summary.failures;
    listener.failed("", atDestination(problemOf(error, "be written to the disk", "")));
  }
  return summary;
}

}  // namespace postern::transfer
