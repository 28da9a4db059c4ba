#include "host/session/file-guard.h"

#include <kj/debug.h>

#include "protocol/policy/path-glob.h"
#include "protocol/transfer/limits.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

using transfer::Entry;
using transfer::EntryKind;
using transfer::Problem;
using transfer::problem;
using transfer::ProblemKind;
using Call = FileGuard::Call;

constexpr size_t SHOWN_PATH_BYTES = 200;

kj::String show(kj::StringPtr path) {
  return printable(path, SHOWN_PATH_BYTES);
}

kj::String denialText(kj::StringPtr path, const transfer::PathScope::Verdict& verdict) {
  if (verdict.rule.size() == 0) return kj::str(show(path), ": denied: no rule of the host's policy allows it");
  return kj::str(show(path), ": denied by rule '", printable(verdict.rule, 64), "' of the host's policy");
}

bool hasContent(Call call) {
  return call == Call::GET || call == Call::PUT;
}

// Whether what lies below a path may be asked for where no rule is about the path itself.
bool goesBelow(Call call) {
  return call == Call::GET || call == Call::PUT || call == Call::LIST;
}

bool isSpecial(const Entry& entry) {
  if (entry.kind == EntryKind::CHARACTER_DEVICE || entry.kind == EntryKind::BLOCK_DEVICE) return true;
  if (entry.kind != EntryKind::SYMBOLIC_LINK && (entry.mode & 07000) != 0) return true;
  for (auto& attribute : entry.attributes) {
    if (attribute.name.startsWith("security.") || attribute.name.startsWith("trusted.")) return true;
  }
  return false;
}

Problem overQuota(kj::StringPtr path, kj::StringPtr what, uint64_t most) {
  return problem(ProblemKind::QUOTA,
                 kj::str(show(path), ": the host's policy allows at most ", most, " ", what, " in one copy"));
}

Problem tooLong(kj::StringPtr path) {
  return problem(ProblemKind::NAME_TOO_LONG,
                 kj::str(show(path), ": over ", transfer::MAX_PATH_BYTES, " bytes, which no rule can be about"));
}

uint32_t countSlashes(kj::StringPtr text) {
  uint32_t count = 0;
  for (char c : text) count += c == '/';
  return count;
}

}  // namespace

kj::Maybe<OrderDenial> findDenial(Call call, kj::StringPtr path, const transfer::PathScope& scope) {
  auto verdict = scope.decide(path);
  if (verdict.allowed) return nullptr;
  bool undecided = verdict.rule.size() == 0 && policy::isCanonicalPath(path);
  if (undecided && goesBelow(call) && scope.allowsSomething()) return nullptr;
  return OrderDenial{denialText(path, verdict), verdict.rule};
}

FileGuard::FileGuard(Call call, kj::StringPtr path, const transfer::PathScope& scope, TransferLimits::Use& limits,
                     FileAudit& audit)
    : call(call), path(kj::heapString(path)), scope(scope), limits(limits), audit(audit) {}

// Of an entry whose path from the top of the transfer is `entry`.
kj::String FileGuard::pathInGuest(kj::StringPtr entry) const {
  auto below = [&](kj::StringPtr rest) { return path == "/" ? kj::str("/", rest) : kj::str(path, "/", rest); };
  if (call == Call::PUT && isInto.orDefault(false)) return below(entry);
  KJ_IF_MAYBE (slash, entry.findFirst('/')) return below(entry.slice(*slash + 1));
  return kj::str(path);
}

// T76
kj::Maybe<Problem> FileGuard::admit(kj::StringPtr entryPath, const Entry& entry) {
  if (call == Call::PUT && isInto == nullptr) {
    return problem(ProblemKind::PROTOCOL, kj::str("entries came before the guest was ready for them"));
  }
  // Of a longer one the mover has the end alone (ForwardCheck::pathOf()).
  if (entryPath.size() >= transfer::MAX_PATH_BYTES) return tooLong(entryPath);
  uint32_t above = countSlashes(entryPath);
  bool isTop = above == 0;
  bool takesSeveral = call == Call::PUT && isInto.orDefault(false);
  if (isTop && topSeen && !takesSeveral) {
    return problem(ProblemKind::PROTOCOL, kj::str("there are several tops, and one path for them"));
  }
  topSeen |= isTop;
  auto inGuest = pathInGuest(entryPath);
  KJ_IF_MAYBE (p, decide(inGuest, isTop, entry)) return kj::mv(*p);
  bool isDirectory = entry.kind == EntryKind::DIRECTORY;
  KJ_IF_MAYBE (p, checkQuotas(inGuest, above + (isDirectory ? 1 : 0), entry)) return kj::mv(*p);
  if (call == Call::GET && !scope.special && isSpecial(entry)) {
    return Problem{ProblemKind::DENIED,
                   kj::str(show(inGuest), ": the guest sent set-id or sticky bits, a device or a security attribute, ",
                           "which the host's policy does not allow (`special`)"),
                   nullptr};
  }
  audit.admitted(inGuest, entry);
  return nullptr;
}

kj::Maybe<Problem> FileGuard::decide(kj::StringPtr inGuest, bool isTop, const Entry& entry) {
  if (inGuest.size() > transfer::MAX_PATH_BYTES) return tooLong(inGuest);
  auto verdict = scope.decide(inGuest);
  bool isWay = isTop && call != Call::PUT && goesBelow(call) && entry.kind == EntryKind::DIRECTORY;
  if (!verdict.allowed && !(isWay && verdict.rule.size() == 0)) {
    return Problem{ProblemKind::DENIED, denialText(inGuest, verdict), kj::heapString(verdict.rule)};
  }
  KJ_IF_MAYBE (text, limits.enter(verdict.rule)) return problem(ProblemKind::BUSY, kj::mv(*text));
  return nullptr;
}

// T77
kj::Maybe<Problem> FileGuard::checkQuotas(kj::StringPtr inGuest, uint32_t depth, const Entry& entry) {
  if (!hasContent(call)) return nullptr;
  auto over = [&](kj::StringPtr what, uint64_t most) { return overQuota(inGuest, what, most); };
  if (entry.kind != EntryKind::DIRECTORY) ++files;
  if (entry.kind == EntryKind::FILE) bytes = entry.size > UINT64_MAX - bytes ? UINT64_MAX : bytes + entry.size;
  if (scope.maxFiles > 0 && files > scope.maxFiles) return over("files", scope.maxFiles);
  if (scope.maxBytes > 0 && bytes > scope.maxBytes) return over("bytes", scope.maxBytes);
  if (scope.maxDepth > 0 && depth > scope.maxDepth) return over("directories inside each other", scope.maxDepth);
  return nullptr;
}

kj::Promise<void> FileGuard::pace(size_t more) {
  content += more;
  if (scope.maxBytes > 0 && content > scope.maxBytes) {
    broken.fulfiller->fulfill(overQuota(path, "bytes", scope.maxBytes));
    return kj::NEVER_DONE;
  }
  return limits.pace(more);
}

void FileGuard::settled(kj::StringPtr entryPath, kj::Maybe<const Problem&> outcome,
                        kj::Maybe<kj::ArrayPtr<const kj::byte>> hash) {
  audit.settled(pathInGuest(entryPath), outcome, hash);
}

}  // namespace postern::host
