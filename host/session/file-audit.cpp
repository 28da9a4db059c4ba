#include "host/session/file-audit.h"

#include <kj/debug.h>

#include <functional>
#include <string_view>

namespace postern::host {

namespace {

size_t hashOf(kj::StringPtr path) {
  return std::hash<std::string_view>()(std::string_view(path.begin(), path.size()));
}

kj::TimePoint preciseNow() {
  return kj::systemPreciseMonotonicClock().now();
}

}  // namespace

FileAudit::FileAudit(OperationLog& log, uint64_t grant, kj::StringPtr call, kj::StringPtr path, Lines lines)
    : log(log), grant(grant), call(call), path(kj::heapString(path)), lines(lines), began(preciseNow()) {}

FileAudit::~FileAudit() noexcept(false) {
  if (!told) tell("given up");
}

void FileAudit::admitted(kj::StringPtr entryPath, const transfer::Entry& entry) {
  bool isDirectory = entry.kind == transfer::EntryKind::DIRECTORY;
  if (open.size() >= MAX_SIZES_KEPT) open.pop_front();
  open.push_back({hashOf(entryPath), isDirectory ? 0 : entry.size, isDirectory});
}

// Most settle in the order in which they came.
kj::Maybe<FileAudit::Admitted> FileAudit::take(kj::StringPtr entryPath) {
  auto hash = hashOf(entryPath);
  for (auto at = open.begin(); at != open.end(); ++at) {
    if (at->pathHash != hash) continue;
    auto found = *at;
    open.erase(at);
    return found;
  }
  return nullptr;
}

void FileAudit::settled(kj::StringPtr entryPath, kj::Maybe<const transfer::Problem&> problem,
                        kj::Maybe<kj::ArrayPtr<const kj::byte>> hash) {
  auto known = take(entryPath);
  uint64_t size = 0;
  bool isDirectory = false;
  KJ_IF_MAYBE (entry, known) {
    size = entry->size;
    isDirectory = entry->isDirectory;
  }
  kj::String outcome;
  KJ_IF_MAYBE (p, problem) {
    ++tally.failures;
    outcome = kj::str("failed: ", transfer::word(p->kind));
  } else {
    ++(isDirectory ? tally.directories : tally.files);
    bytes += size;
    outcome = kj::str("done");
  }
  KJ_IF_MAYBE (h, hash) {
    ++hashes;
    lastHash = kj::heapArray(*h);
  }
  if (lines == Lines::SUMMARY || (isDirectory && problem == nullptr)) return;
  FileTally one;
  one.hash = hash;
  OperationRecord record{grant, call, outcome};
  record.bytes = size;
  record.path = path;
  record.entry = entryPath;
  record.files = one;
  if (!log.operation(record)) ++tally.leftOut;
}

void FileAudit::came(const transfer::Summary& summary) {
  tally.files = summary.files;
  tally.directories = summary.directories;
  tally.sentBytes = summary.sentBytes;
  tally.failures = summary.failures;
  tally.unchanged = summary.unchanged;
  bytes = summary.bytes;
  tell(summary.failures == 0 ? "done"_kj : "incomplete"_kj);
}

void FileAudit::came(const transfer::Problem& problem) {
  tell(problem.kind == transfer::ProblemKind::DENIED ? kj::str("denied")
                                                     : kj::str("failed: ", transfer::word(problem.kind)));
}

void FileAudit::came(schema::Failure::Reader failure) {
  tell(outcomeOf(failure));
}

void FileAudit::came(kj::StringPtr outcome) {
  tell(outcome);
}

void FileAudit::tell(kj::StringPtr outcome) {
  KJ_REQUIRE(!told, "an operation has one outcome");
  told = true;
  // Of a tree it would say nothing: each file has its own.
  if (hashes == 1 && tally.files == 1) tally.hash = lastHash.asPtr();
  OperationRecord record{grant, call, outcome};
  record.took = preciseNow() - began;
  record.bytes = bytes;
  record.path = path;
  record.files = tally;
  log.operation(record);
}

}  // namespace postern::host
