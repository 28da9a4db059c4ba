#include "host/client/transfer-watch.h"

#include <sys/socket.h>

namespace postern::client {

namespace {

transfer::Entry copy(const transfer::Entry& from) {
  transfer::Entry to;
  to.kind = from.kind;
  to.name = kj::str(from.name);
  to.mode = from.mode;
  to.modifiedSeconds = from.modifiedSeconds;
  to.modifiedNanoseconds = from.modifiedNanoseconds;
  to.uid = from.uid;
  to.gid = from.gid;
  to.owner = kj::str(from.owner);
  to.group = kj::str(from.group);
  to.size = from.size;
  to.target = kj::str(from.target);
  to.hasLinks = from.hasLinks;
  to.deviceMajor = from.deviceMajor;
  to.deviceMinor = from.deviceMinor;
  for (auto& attribute : from.attributes) {
    to.attributes.add(transfer::Attribute{kj::str(attribute.name), nullptr});
  }
  return to;
}

size_t bytesOf(const ListedEntry& listed) {
  size_t bytes = sizeof(listed) + listed.path.size() + listed.entry.name.size() + listed.entry.target.size();
  for (auto& attribute : listed.entry.attributes) bytes += sizeof(attribute) + attribute.name.size();
  return bytes;
}

}  // namespace

TransferProgress TransferWatch::progress() const {
  auto locked = state.lockExclusive();
  auto& from = locked->progress;
  TransferProgress to;
  to.counted = from.counted;
  to.totals = from.totals;
  to.sentBytes = from.sentBytes;
  to.doneEntries = from.doneEntries;
  to.doneBytes = from.doneBytes;
  to.failures = from.failures;
  to.last = kj::str(from.last);
  return to;
}

kj::Vector<EntryProblem> TransferWatch::takeFailures() const {
  auto locked = state.lockExclusive();
  auto taken = kj::mv(locked->failures);
  locked->failures = {};
  return taken;
}

kj::Vector<ListedEntry> TransferWatch::takeEntries() const {
  auto locked = state.lockExclusive();
  auto taken = kj::mv(locked->entries);
  locked->entries = {};
  locked->entryBytes = 0;
  return taken;
}

kj::Maybe<transfer::OpenerEnd> TransferWatch::takeEnd() const {
  auto locked = state.lockExclusive();
  auto taken = kj::mv(locked->end);
  locked->end = nullptr;
  return taken;
}

bool TransferWatch::hasEnded() const {
  return state.lockExclusive()->ended;
}

void TransferWatch::abandon() const {
  state.lockExclusive()->abandoned = true;
  shutDown();
}

void TransferWatch::shutDown() const {
  // What has come before is read still.
  ::shutdown(socket, SHUT_RDWR);
}

void TransferWatch::end(transfer::OpenerEnd end) const {
  {
    auto locked = state.lockExclusive();
    locked->end = kj::mv(end);
    locked->ended = true;
  }
  shutDown();
}

void TransferWatch::counted(const transfer::Totals& totals) {
  auto locked = state.lockExclusive();
  locked->progress.counted = true;
  locked->progress.totals = totals;
}

void TransferWatch::sent(uint64_t bytes) {
  state.lockExclusive()->progress.sentBytes = bytes;
}

void TransferWatch::progress(const transfer::Progress& progress) {
  auto locked = state.lockExclusive();
  locked->progress.doneEntries = progress.entries;
  locked->progress.doneBytes = progress.bytes;
}

void TransferWatch::failed(kj::StringPtr path, const transfer::Problem& problem) {
  auto locked = state.lockExclusive();
  ++locked->progress.failures;
  if (locked->failures.size() < MAX_PENDING_FAILURES) {
    locked->failures.add(EntryProblem{kj::str(path), transfer::copy(problem)});
  }
}

void TransferWatch::made(kj::StringPtr path, const transfer::Entry&) {
  state.lockExclusive()->progress.last = kj::str(path);
}

void TransferWatch::entry(kj::StringPtr path, const transfer::Entry& entry) {
  ListedEntry listed{kj::str(path), copy(entry)};
  state.when([](const State& state) { return state.abandoned || state.entryBytes < MAX_PENDING_BYTES; },
             [&](State& state) {
               ++state.progress.doneEntries;
               if (state.abandoned) return;
               state.entryBytes += bytesOf(listed);
               state.entries.add(kj::mv(listed));
             });
}

}  // namespace postern::client
