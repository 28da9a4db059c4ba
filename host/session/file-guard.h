#pragma once
// FileGuard: the host's lock on a transfer: what its movers ask before an entry goes on (transport/transfer/mover.h).
//
// Each entry is decided by the scope that posternd took out of the policy, under the path that it has in the guest; it
// counts for the policy's quotas; what it brings is paced by the limits of the rule that decided; and it is written
// down for the audit. What does not pass ends the transfer.
//
// A directory that a get or a list names, and about which no rule says anything, passes for the sake of what lies below
// it. From a guest, set-id and sticky bits, devices and security attributes pass only if the policy says `special`: an
// honest one was told so by the order and does not send them. What a guest makes in itself is its own to bound.

#include "host/session/file-audit.h"
#include "host/session/transfer-limits.h"
#include "protocol/transfer/path-scope.h"
#include "transport/transfer/mover.h"

namespace postern::host {

class FileGuard final : public transfer::MoverGuard {
 public:
  using Call = postern::schema::FileOrder::Call;

  // References outlive it. `path` is canonical: the order's.
  FileGuard(Call call, kj::StringPtr path, const transfer::PathScope& scope, TransferLimits::Use& limits,
            FileAudit& audit);

  kj::Maybe<transfer::Problem> admit(kj::StringPtr path, const transfer::Entry& entry) override;
  void ready(bool into) override { isInto = into; }
  kj::Promise<void> pace(size_t bytes) override;
  void settled(kj::StringPtr path, kj::Maybe<const transfer::Problem&> problem,
               kj::Maybe<kj::ArrayPtr<const kj::byte>> hash) override;

  // A rule that content has broken, of a stream whose size nobody knew: the transfer has to end. Once.
  kj::Promise<transfer::Problem> whenBroken() { return kj::mv(broken.promise); }

 private:
  const Call call;
  const kj::String path;
  const transfer::PathScope& scope;
  TransferLimits::Use& limits;
  FileAudit& audit;
  kj::Maybe<bool> isInto;  // put: once the guest has said so
  uint64_t files = 0;
  uint64_t bytes = 0;    // of the files that were admitted
  uint64_t content = 0;  // that has passed
  bool topSeen = false;
  kj::PromiseFulfillerPair<transfer::Problem> broken = kj::newPromiseAndFulfiller<transfer::Problem>();

  kj::String pathInGuest(kj::StringPtr entry) const;
  kj::Maybe<transfer::Problem> decide(kj::StringPtr inGuest, bool isTop, const transfer::Entry& entry);
  kj::Maybe<transfer::Problem> checkQuotas(kj::StringPtr inGuest, uint32_t depth, const transfer::Entry& entry);
};

// What the order may not do, or null: the path of a put, get or list may be one that no rule is about, since each entry
// is decided again.
struct OrderDenial {
  kj::String text;
  kj::StringPtr rule;  // of the scope
};
kj::Maybe<OrderDenial> findDenial(FileGuard::Call call, kj::StringPtr path, const transfer::PathScope& scope);

}  // namespace postern::host
