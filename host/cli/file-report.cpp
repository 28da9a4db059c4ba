#include "host/cli/file-report.h"

#include <string.h>

#include "host/cli/failure-text.h"
#include "protocol/transfer/limits.h"

namespace postern::cli {

namespace {

// The detail without the path that stands before it already.
kj::StringPtr detailAfter(kj::StringPtr where, kj::StringPtr detail) {
  auto colon = where.findFirst(':').map([](size_t at) { return at + 1; }).orDefault(0);
  for (auto path : {where, where.slice(colon)}) {
    auto prefix = kj::str(path, ": ");
    if (path.size() > 0 && detail.startsWith(prefix)) return detail.slice(prefix.size());
  }
  return detail;
}

client::Failure failureOf(const transfer::Problem& problem, kj::String text) {
  return {client::failureKindOf(problem.kind), kj::mv(text), kj::str(problem.rule), nullptr, client::Lock::GUEST};
}

}  // namespace

kj::String lineOf(kj::StringPtr where, const transfer::Problem& problem, Letters letters) {
  auto detail = detailAfter(where, problem.detail);
  if (detail.size() == 0) detail = transfer::word(problem.kind);
  bool saysRule = problem.rule.size() == 0 || strstr(detail.cStr(), problem.rule.cStr()) != nullptr;
  auto rule = saysRule ? kj::str() : kj::str(" (by rule '", shown(problem.rule, 80), "')");
  return kj::str(shownPath(where, letters), ": ", shown(detail, transfer::MAX_PROBLEM_BYTES), rule);
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
