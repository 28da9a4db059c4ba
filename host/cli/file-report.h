#pragma once
// FileReport: what came of a command on files. It goes on past what fails: a line on stderr for each of the first
// MAX_LINES failures as they come, then how many more there were; with --json all of it, up to MAX_KEPT, in the one
// document at the end. The exit status is the worst of the failures; an entry that failed within an operation is
// FAILED, unless nothing of the operation was carried out and all for one reason: then the status is that reason's.

#include "host/cli/file-name.h"
#include "host/cli/invocation.h"
#include "host/client/file-transfer.h"

namespace postern::cli {

class FileReport {
 public:
  static constexpr size_t MAX_LINES = 20;
  static constexpr size_t MAX_KEPT = 500;

  explicit FileReport(Invocation& run);
  KJ_DISALLOW_COPY(FileReport);

  // `where` begins the line: "web1:/srv/x", "site/x". An entry of an operation that goes on.
  void entryFailed(kj::StringPtr where, const transfer::Problem& problem);
  // An operation that was not carried out.
  void failed(kj::StringPtr where, const transfer::Problem& problem);
  void failed(const client::Failure& failure);
  // An operation that was, but for the entries that were told since the last one. Also those that the opener counted
  // and did not tell.
  void carriedOut(const transfer::Summary& summary, uint64_t entryFailures);

  // After the last failure. Writes "and N more" where it is wanted.
  ExitStatus finish();
  ExitStatus exitStatus() const { return status; }
  // The fields failures, failureCount, error and exitStatus of an object that is open; finish() was called.
  void writeFields(JsonWriter& json) const;

  Letters letters() const { return shownLetters; }

 private:
  struct Kept {
    kj::String where;
    kj::String kind;
    kj::String text;
    kj::String rule;
  };
  Invocation& run;
  const Letters shownLetters;
  ExitStatus status = ExitStatus::DONE;
  uint64_t count = 0;
  kj::Vector<Kept> kept;
  kj::Maybe<client::Failure> first;  // operation that was not carried out
  bool firstHasLock = false;
  kj::Maybe<transfer::ProblemKind> commonKind;  // of the present operation's entries
  bool severalKinds = false;

  void add(kj::StringPtr where, kj::StringPtr kind, kj::StringPtr text, kj::StringPtr rule, kj::String line);
};

// "site/x: cannot be read: permission denied for user alice". Printable, without a newline.
kj::String lineOf(kj::StringPtr where, const transfer::Problem& problem, Letters letters);

}  // namespace postern::cli
