#include "host/cli/file-report.h"

#include <string.h>

#include "host/cli/failure-text.h"
#include "protocol/transfer/limits.h"

namespace postern::cli {

namespace {

// "web1:" of "web1:/srv"; empty: a path here.
kj::String vmOf(kj::StringPtr where) {
  auto colon = where.findFirst(':').orDefault(where.size());
  bool remote = colon < where.findFirst('/').orDefault(where.size());
  return remote ? kj::heapString(where.slice(0, colon + 1)) : kj::String();
}

// What a line begins with, and what follows: a detail may name a path of its own, the same one or one below.
struct Line {
  kj::String where;
  kj::StringPtr detail;
};
Line lineFor(kj::StringPtr where, kj::StringPtr detail) {
  auto vm = vmOf(where);
  if (detail.startsWith("/") && vm.size() > 0) return {kj::mv(vm), detail};
  auto prefix = kj::str(where, ": ");
  auto rest = detail.startsWith(prefix) ? detail.slice(prefix.size()) : detail;
  return {kj::mv(prefix), rest};
}

client::Failure failureOf(const transfer::Problem& problem, kj::String text) {
  return {client::failureKindOf(problem.kind), kj::mv(text), kj::str(problem.rule), nullptr, client::Lock::GUEST};
}

}  // namespace

kj::String lineOf(kj::StringPtr where, const transfer::Problem& problem, Letters letters) {
  auto detail = problem.detail.size() > 0 ? problem.detail.asPtr() : transfer::word(problem.kind);
  auto line = lineFor(where, detail);
  bool saysRule = problem.rule.size() == 0 || strstr(detail.cStr(), problem.rule.cStr()) != nullptr;
  auto rule = saysRule ? kj::str() : kj::str(" (by rule '", shown(problem.rule, 80), "')");
  return kj::str(shownPath(line.where, letters), shown(line.detail, transfer::MAX_PROBLEM_BYTES), rule);
}

FileReport::FileReport(Invocation& run)
    : run(run), shownLetters(run.world.takesUtf8() ? Letters::UTF8 : Letters::ASCII) {}

void FileReport::add(kj::StringPtr where, kj::StringPtr kind, kj::StringPtr text, kj::StringPtr rule, kj::String line) {
  ++count;
  if (run.options.json) {
    if (kept.size() < MAX_KEPT) kept.add(Kept{kj::str(where), kj::str(kind), kj::str(text), kj::str(rule)});
  } else if (count <= MAX_LINES) {
    run.world.error(line);
  }
}

void FileReport::entryFailed(kj::StringPtr where, const transfer::Problem& problem) {
  KJ_IF_MAYBE (kind, commonKind) {
    severalKinds = severalKinds || *kind != problem.kind;
  }
  commonKind = problem.kind;
  add(where, transfer::word(problem.kind), problem.detail, problem.rule,
      kj::str("postern: ", lineOf(where, problem, shownLetters), '\n'));
}

void FileReport::failed(kj::StringPtr where, const transfer::Problem& problem) {
  auto line = lineOf(where, problem, shownLetters);
  auto failure = failureOf(problem, kj::str(line));
  status = worst(status, exitStatusOf(failure.kind));
  if (first == nullptr) first = kj::mv(failure);
  add(where, transfer::word(problem.kind), problem.detail, problem.rule, kj::str("postern: ", line, '\n'));
}

void FileReport::failed(const client::Failure& failure) {
  status = worst(status, exitStatusOf(failure.kind));
  if (first == nullptr) {
    first = client::Failure{failure.kind, kj::str(failure.text), kj::str(failure.rule), kj::str(failure.suggestion),
                            failure.lock};
    firstHasLock = true;
  }
  add("", client::kindName(failure.kind), failure.text, failure.rule, errorText(failure));
}

void FileReport::carriedOut(const transfer::Summary& summary, uint64_t entryFailures) {
  if (entryFailures > 0 || summary.failures > 0) {
    bool nothing = summary.files == 0 && summary.directories == 0 && summary.unchanged == 0;
    auto kind = commonKind.orDefault(transfer::ProblemKind::FAILED);
    bool oneReason = nothing && !severalKinds && commonKind != nullptr;
    status = worst(status, oneReason ? exitStatusOf(client::failureKindOf(kind)) : ExitStatus::FAILED);
  }
  if (summary.failures > entryFailures) count += summary.failures - entryFailures;
  commonKind = nullptr;
  severalKinds = false;
}

ExitStatus FileReport::finish() {
  if (!run.options.json && count > MAX_LINES) run.world.error(kj::str("postern: and ", count - MAX_LINES, " more\n"));
  return status;
}

void FileReport::writeFields(JsonWriter& json) const {
  json.key("failures").beginArray();
  for (auto& failure : kept) {
    json.beginObject();
    if (failure.where.size() > 0) writeName(json, "path", failure.where);
    json.field("kind", failure.kind).field("detail", failure.text);
    if (failure.rule.size() > 0) json.field("rule", failure.rule);
    json.endObject();
  }
  json.endArray().field("failureCount", count);
  KJ_IF_MAYBE (failure, first) {
    json.key("error");
    if (firstHasLock) {
      writeError(json, *failure);
    } else {
      json.beginObject().field("kind", client::kindName(failure->kind)).field("text", failure->text);
      if (failure->rule.size() > 0) json.field("rule", failure->rule);
      json.endObject();
    }
  }
  json.field("exitStatus", static_cast<int>(status));
}

}  // namespace postern::cli
