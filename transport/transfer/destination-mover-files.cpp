// The files that a destination's mover writes.

#include "transport/transfer/destination-mover.h"

namespace postern::transfer {

// Gives the thread what there is to do, if it is idle.
void DestinationMover::work() {
  auto& current = KJ_ASSERT_NONNULL(receiving);
  if (current.way != Receiving::Way::WRITTEN) {
    if (current.finishing || current.abandoned != nullptr) endFile(current);
    return;
  }
  auto& idle = current.file;
  if (idle.get() == nullptr) return;
  if (current.abandoned != nullptr) {
    if (current.owesBase) tellBase(current, 0);
    commit(current, copy(KJ_ASSERT_NONNULL(current.abandoned)), false);
    return endFile(current);
  }
  bool writes = !current.waiting.empty() || current.finishing || current.owesBase;
  bool hashes = current.wantsBase && idle->hasMoreHashes() && writer.waiting() <= CHANNEL_UNSENT_BYTES;
  if (!writes && !hashes) return;
  idle->pieces = kj::mv(current.waiting);
  current.waiting = {};
  current.writingBytes = current.waitingBytes;
  current.waitingBytes = 0;
  idle->finishing = current.finishing;
  idle->hashesWanted = writes ? 0 : HASH_STEP;
  KJ_IF_MAYBE (hash, current.wantedHash) idle->wantedHash = *hash;
  fileTasks->add(files().run(kj::mv(idle)).then([this](kj::Own<DestinationFile> file) { worked(kj::mv(file)); }));
}

void DestinationMover::worked(kj::Own<DestinationFile> file) {
  auto& current = KJ_ASSERT_NONNULL(receiving);
  file->pieces.clear();  // their credit goes back
  current.writingBytes = 0;
  sendHashes(*file);
  auto& reference = *file;
  current.file = kj::mv(file);
  if (current.abandoned == nullptr) settle(current, reference);
  if (receiving == nullptr || isOver()) return;
  bool needsRoom = current.waitingBytes > MAX_WAITING_BYTES;
  work();
  if (receiving != nullptr && !needsRoom && !current.finishing && current.abandoned == nullptr) wake();
}

// What the last run came to.
void DestinationMover::settle(Receiving& current, DestinationFile& file) {
  switch (file.state) {
    case DestinationFile::State::WRITING:
      if (current.owesBase) tellBase(current, file.baseBytes());
      return;
    case DestinationFile::State::WHOLE:
      commit(current, Whole(), file.synced);
      break;
    case DestinationFile::State::UNCHANGED:
      commit(current, Unchanged(), file.synced);
      break;
    case DestinationFile::State::FAILED:
      if (file.problem.kind == ProblemKind::PROTOCOL) {
        over(kj::mv(file.problem));
        return;
      }
      if (current.owesBase) tellBase(current, 0);
      commit(current, kj::mv(file.problem), false);
      current.way = Receiving::Way::DROPPED;
      current.waiting.clear();
      current.waitingBytes = 0;
      break;
  }
  if (current.finishing) endFile(current);
}

void DestinationMover::tellBase(Receiving& current, uint64_t bytes) {
  current.owesBase = false;
  forwardCheck.toldBase(bytes);
  send(Backward(Base{bytes}));
  writer.flush();
}

void DestinationMover::sendHashes(DestinationFile& file) {
  if (file.hashes.empty()) return;
  send(Backward(Hashes{file.hashes.releaseAsArray()}));
  writer.flush();
  if (writer.waiting() <= CHANNEL_UNSENT_BYTES) return;
  // The next ones, once there is room for them.
  fileTasks->add(whenSendable().then([this]() {
    if (receiving != nullptr) work();
  }));
}

void DestinationMover::commit(Receiving& current, Outcome outcome, bool synced) {
  if (current.committed) return;
  current.committed = true;
  KJ_IF_MAYBE (problem, outcome.tryGet<Problem>()) {
    (void)problem;
  } else {
    KJ_IF_MAYBE (hash, current.wantedHash) ledger.verified(current.entry, hash->asPtr());
  }
  builder.init<schema::ToOpener>().setSent(moved);
  opener.put(builder);
  write(Commit{current.entry, kj::mv(outcome), synced}, builder.init<schema::ToOpener>().initCommit());
  opener.put(builder);
  opener.flush();
}

void DestinationMover::endFile(Receiving& current) {
  for (int fd : current.fds) files().close(fd);
  auto waiter = kj::mv(current.waiter);
  receiving = nullptr;
  KJ_IF_MAYBE (w, waiter) (*w)->fulfill();
}

void DestinationMover::dropFiles() {
  fileTasks = nullptr;
}

// What came of a file may serve the next transfer.
void DestinationMover::leaveOpener() {
  KJ_IF_MAYBE (current, receiving) {
    if (current->way == Receiving::Way::WRITTEN) commit(*current, Kept(), false);
  }
}

}  // namespace postern::transfer
