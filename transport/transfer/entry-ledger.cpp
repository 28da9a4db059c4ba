#include "transport/transfer/entry-ledger.h"

namespace postern::transfer {

void EntryLedger::add(uint64_t entry, kj::String path) {
  pathBytes += path.size();
  open.emplace(entry, Open{kj::mv(path), nullptr});
  while (open.size() > LEDGER_ENTRIES || pathBytes > LEDGER_BYTES) settleFirst(nullptr);
}

void EntryLedger::verified(uint64_t entry, kj::ArrayPtr<const kj::byte> hash) {
  auto found = open.find(entry);
  if (found != open.end()) found->second.hash = kj::heapArray(hash);
}

void EntryLedger::failed(uint64_t entry, kj::StringPtr path, const Problem& problem) {
  auto found = open.find(entry);
  if (found == open.end()) return guard.settled(path, problem, nullptr);
  auto own = kj::mv(found->second.path);
  pathBytes -= own.size();
  open.erase(found);
  guard.settled(own, problem, nullptr);
}

void EntryLedger::finished() {
  while (!open.empty()) settleFirst(nullptr);
}

void EntryLedger::brokenOff(const Problem& problem) {
  while (!open.empty()) settleFirst(problem);
}

void EntryLedger::settleFirst(kj::Maybe<const Problem&> problem) {
  auto first = open.begin();
  auto entry = kj::mv(first->second);
  pathBytes -= entry.path.size();
  open.erase(first);
  kj::Maybe<kj::ArrayPtr<const kj::byte>> hash;
  if (problem == nullptr) {
    KJ_IF_MAYBE (known, entry.hash) hash = known->asPtr();
  }
  guard.settled(entry.path, problem, hash);
}

}  // namespace postern::transfer
