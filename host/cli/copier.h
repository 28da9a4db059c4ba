#pragma once
// Copier: carries out the transfers of one `postern cp`, one after the other, shows how far they are and reports what
// failed. What stands in the way of one transfer does not keep the others from being tried; Ctrl-C ends all.

#include "host/cli/file-report.h"
#include "host/cli/local-target.h"
#include "host/cli/progress-line.h"

namespace postern::cli {

class Copier {
 public:
  Copier(Invocation& run, const CopyArguments& arguments, FileReport& report);
  KJ_DISALLOW_COPY(Copier);

  enum class Into : uint8_t { AS_IS, DIRECTORY };
  void put(const FilePath& destination, kj::Vector<transfer::SourceTop> tops, Into into);
  void putStream(const FilePath& destination, kj::AutoCloseFd stream);
  void get(const FilePath& source, LocalPlace place);
  void getStream(const FilePath& source, kj::AutoCloseFd stream);
  // For a get that is followed by a put: said where this machine's disk is the problem.
  void passThrough(kj::StringPtr folder) { passes = folder; }

  // Whether so much was under way that going on is worth it; and whether something of that was cut off.
  bool isWorthResuming() const { return large; }
  bool wasCutOff() const { return large && cutOff; }
  // On a terminal, what was done in all.
  void sayWhatWasDone();
  // The fields totals, summary and seconds of an object that is open.
  void writeFields(JsonWriter& json) const;

 private:
  using Start = kj::Function<kj::Own<client::FileTransfer>(client::VmClient&, const client::FileOrder&)>;
  // An entry's path as the opener tells it, to one as the user would write it.
  using Naming = kj::Function<kj::String(kj::StringPtr)>;

  Invocation& run;
  const CopyArguments& arguments;
  FileReport& report;
  ProgressLine line;
  const kj::TimePoint began;
  kj::StringPtr passes;
  transfer::Totals totals;
  transfer::Summary summary;
  bool large = false;
  bool cutOff = false;

  client::FileOrder orderOf(client::FileCall call, const FilePath& path) const;
  struct What {
    const FilePath& remote;
    client::FileOrder order;
    kj::String label;  // for the progress
    kj::Duration undo;
  };
  void transfer(const What& what, Naming naming, Start start);
  void settle(const FilePath& remote, const client::FileOrder& order, client::FileOutcome outcome,
              const client::TransferProgress& progress);
  void add(const transfer::Summary& more, const client::TransferProgress& progress);
  void failed(const client::Failure& failure);
  client::Failure explained(const FilePath& remote, const client::FileOrder& order, client::Failure failure);
};

}  // namespace postern::cli
