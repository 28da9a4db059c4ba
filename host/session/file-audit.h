#pragma once
// FileAudit: what the audit log is told of one file.* call: a record when it is over, whichever way, and before that,
// where posternd asked for it, one for each file. Files come faster than an audit log should grow: those that the log
// does not take are counted in the last record. Owned by the call.

#include <deque>

#include "host/session/operation-log.h"
#include "protocol/transfer/entry.h"
#include "protocol/transfer/progress.h"

namespace postern::host {

// Entries that have been admitted and not settled, whose size is remembered: as many as a mover remembers
// (transport/transfer/entry-ledger.h), with room.
constexpr size_t MAX_SIZES_KEPT = 2048;

class FileAudit {
 public:
  enum class Lines : uint8_t { SUMMARY, EACH };
  // `log` outlives it; `call` is static.
  FileAudit(OperationLog& log, uint64_t grant, kj::StringPtr call, kj::StringPtr path, Lines lines);
  // Says "given up" unless something came of it.
  ~FileAudit() noexcept(false);
  KJ_DISALLOW_COPY(FileAudit);

  // An entry goes on. `path` is what it is called in the guest.
  void admitted(kj::StringPtr path, const transfer::Entry& entry);
  void settled(kj::StringPtr path, kj::Maybe<const transfer::Problem&> problem,
               kj::Maybe<kj::ArrayPtr<const kj::byte>> hash);
  // Content that has travelled so far: for a call that ends without a summary.
  void sent(uint64_t bytes) { tally.sentBytes = bytes; }

  // What came of it, once.
  void came(const transfer::Summary& summary);
  void came(const transfer::Problem& problem);
  void came(schema::Failure::Reader failure);
  void came(kj::StringPtr outcome);

 private:
  struct Admitted {
    size_t pathHash;  // two that are the same are taken for each other: a wrong size in one line
    uint64_t size;
    bool isDirectory;
  };

  OperationLog& log;
  const uint64_t grant;
  const kj::StringPtr call;
  const kj::String path;
  const Lines lines;
  const kj::TimePoint began;
  bool told = false;
  std::deque<Admitted> open;
  FileTally tally;
  uint64_t bytes = 0;
  uint64_t hashes = 0;
  kj::Array<kj::byte> lastHash;

  kj::Maybe<Admitted> take(kj::StringPtr path);
  void tell(kj::StringPtr outcome);
};

}  // namespace postern::host
