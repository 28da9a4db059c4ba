#include "protocol/transfer/problem.h"

#include <algorithm>

#include "protocol/transfer/limits.h"

namespace postern::transfer {

namespace {

// The beginning of a text, not ending within a character.
kj::ArrayPtr<const char> bounded(kj::StringPtr text, size_t most) {
  size_t size = text.size();
  if (size > most) {
    size = most;
    while (size > 0 && (text[size] & 0xc0) == 0x80) --size;
  }
  return text.slice(0, size);
}

}  // namespace

kj::StringPtr word(ProblemKind kind) {
  switch (kind) {
    case ProblemKind::FAILED:
      return "failed";
    case ProblemKind::NO_SUCH_FILE:
      return "no-such-file";
    case ProblemKind::NOT_DIRECTORY:
      return "not-directory";
    case ProblemKind::IS_DIRECTORY:
      return "is-directory";
    case ProblemKind::EXISTS:
      return "exists";
    case ProblemKind::PERMISSION:
      return "permission";
    case ProblemKind::DENIED:
      return "denied";
    case ProblemKind::NAME_TOO_LONG:
      return "name-too-long";
    case ProblemKind::SYMBOLIC_LINK:
      return "symbolic-link";
    case ProblemKind::NO_SPACE:
      return "no-space";
    case ProblemKind::QUOTA:
      return "quota";
    case ProblemKind::UNSUPPORTED:
      return "unsupported";
    case ProblemKind::VANISHED:
      return "vanished";
    case ProblemKind::CHANGED:
      return "changed";
    case ProblemKind::UNREADABLE:
      return "unreadable";
    case ProblemKind::BAD_HASH:
      return "bad-hash";
    case ProblemKind::BUSY:
      return "busy";
    case ProblemKind::NOT_EMPTY:
      return "not-empty";
    case ProblemKind::READ_ONLY:
      return "read-only";
    case ProblemKind::PROTOCOL:
      return "protocol";
    case ProblemKind::TOO_MANY:
      return "too-many";
  }
  return "failed";
}

Problem parseProblem(schema::Problem::Reader untrusted) {
  auto kind = untrusted.getKind();
  if (kind > ProblemKind::TOO_MANY) kind = ProblemKind::FAILED;
  return {kind, kj::heapString(bounded(untrusted.getDetail(), MAX_PROBLEM_BYTES)),
          kj::heapString(bounded(untrusted.getRule(), MAX_RULE_ID_BYTES))};
}

void write(const Problem& from, schema::Problem::Builder to) {
  to.setKind(from.kind);
  auto detail = kj::heapString(bounded(from.detail, MAX_PROBLEM_BYTES));
  if (detail.size() > 0) to.setDetail(detail);
  auto rule = kj::heapString(bounded(from.rule, MAX_RULE_ID_BYTES));
  if (rule.size() > 0) to.setRule(rule);
}

Problem copy(const Problem& problem) {
  return {problem.kind, kj::heapString(problem.detail), kj::heapString(problem.rule)};
}

}  // namespace postern::transfer
