// The destination's mover: what comes over the channel goes to its opener, but for the bytes of files for which the
// opener passes a descriptor: those it writes. Of the base that came with a file it tells the hashes.

#include "transport/transfer/destination-file.h"
#include "transport/transfer/mover-core.h"

namespace postern::transfer {

namespace {

// Bytes of a file that wait to be written or are being written, above which the channel is not read: no more than its
// credit, unless frames come in pieces, which are copied.
constexpr size_t MAX_WAITING_BYTES = READ_AHEAD_BYTES;

// What content lies in, until it is written: the chunk, whose credit goes back then, or a copy.
struct HeldChunk final : public kj::Refcounted {
  BulkChunk chunk;
  explicit HeldChunk(BulkChunk chunk) : chunk(kj::mv(chunk)) {}
};
struct HeldCopy final : public kj::Refcounted {
  kj::Array<kj::byte> bytes;
  explicit HeldCopy(kj::Array<kj::byte> bytes) : bytes(kj::mv(bytes)) {}
};

class DestinationMover final : public MoverCore, private kj::TaskSet::ErrorHandler {
 public:
  DestinationMover(kj::UnixEventPort& port, kj::AutoCloseFd opener, kj::Own<BulkChannel> channel,
                   const MoverOptions& options, MoverGuard& guard)
      : MoverCore(port, kj::mv(opener), kj::mv(channel), options, guard) {}

 private:
  // The file that is being received.
  struct Receiving {
    enum class Way : uint8_t {
      AWAITED,    // the opener has to answer
      WRITTEN,    // here
      FORWARDED,  // to the opener, who took no descriptor for it
      DROPPED,    // it failed
    };
    Way way = Way::AWAITED;
    uint64_t entry = 0;
    uint64_t size = 0;
    bool stream = false;
    bool wantsBase = false;
    bool owesBase = false;
    kj::Vector<int> fds;
    kj::Own<DestinationFile> file;  // null while it is with the thread
    kj::Vector<DestinationPiece> waiting;
    size_t waitingBytes = 0;  // of it, and of what is with the thread
    size_t writingBytes = 0;
    bool finishing = false;
    kj::Maybe<Hash> wantedHash;
    kj::Maybe<Problem> abandoned;  // by the source
    bool committed = false;
    kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> waiter;  // for the opener's answer, for room, or for the end
  };

  FrameReader channelReader;
  kj::Own<HeldChunk> chunk;
  kj::ArrayPtr<const kj::byte> rest;  // of it
  size_t unpaced = 0;
  kj::Maybe<Receiving> receiving;
  kj::Own<kj::TaskSet> fileTasks = kj::heap<kj::TaskSet>(static_cast<kj::TaskSet::ErrorHandler&>(*this));
  FrameReader packetReader;

  kj::Promise<void> fromChannel() override;
  kj::Promise<void> consume();
  kj::Maybe<kj::Promise<void>> take(Forward& message, FrameView& frame);
  kj::Maybe<kj::Promise<void>> takeEntry(Forward& message, FrameView& frame);
  kj::Maybe<kj::Promise<void>> takePart(Receiving& current, Forward& message, FrameView& frame);
  kj::Maybe<kj::Promise<void>> takeEnd(Receiving& current, Forward& message);

  kj::Own<kj::Refcounted> hold(kj::ArrayPtr<const kj::byte>& content);
  kj::Promise<void> awaitChange(Receiving& current);
  void wake();
  void work();
  void worked(kj::Own<DestinationFile> file);
  void settle(Receiving& current, DestinationFile& file);
  void commit(Receiving& current, Outcome outcome, bool synced);
  void endFile(Receiving& current);
  void tellBase(Receiving& current, uint64_t bytes);
  void sendHashes(DestinationFile& file);

  kj::Promise<void> fromOpener() override;
  kj::Promise<void> frames(kj::ArrayPtr<kj::byte> bytes, kj::Vector<int> fds);
  kj::Maybe<kj::Promise<void>> takeBackward(kj::ArrayPtr<kj::byte> frame);
  kj::Maybe<kj::Promise<void>> takeOpened(FrameView& frame, kj::Vector<int>& fds);
  kj::Promise<void> farewell(MoverEnd how);

  void dropFiles() override;
  void leaveOpener() override;
  void taskFailed(kj::Exception&& exception) override { internalError(kj::mv(exception)); }
};

// From the channel ---------------------------------------------------------------------------------------------------

kj::Promise<void> DestinationMover::fromChannel() {
  return channel->read().then([this](kj::OneOf<BulkChunk, BulkEnd> next) -> kj::Promise<void> {
    if (next.is<BulkEnd>()) {
      // The opener has the rest to do.
      if (next.get<BulkEnd>() == BulkEnd::FINISHED && forwardCheck.isDone()) return kj::NEVER_DONE;
      return channelEnded(next.get<BulkEnd>());
    }
    chunk = kj::refcounted<HeldChunk>(kj::mv(next.get<BulkChunk>()));
    rest = chunk->chunk.bytes();
    return consume()
        .then([this]() {
          chunk = nullptr;
          size_t bytes = unpaced;
          unpaced = 0;
          return bytes == 0 ? kj::Promise<void>(kj::READY_NOW) : guard.pace(bytes);
        })
        .then([this]() { return fromChannel(); });
  });
}

kj::Promise<void> DestinationMover::consume() {
  for (;;) {
    auto next = channelReader.next(rest);
    KJ_IF_MAYBE (one, next) {
      if (one->is<FrameError>()) return broken(one->get<FrameError>());
      auto& frame = *one->get<FrameView*>();
      auto parsed = parseForward(frame);
      if (parsed.is<FrameError>()) return broken(parsed.get<FrameError>());
      unpaced += frame.content().size();
      moved += frame.content().size();
      KJ_IF_MAYBE (wait, take(parsed.get<Forward>(), frame)) {
        return wait->then([this]() { return consume(); });
      }
      if (opener.isFull()) {
        return whenOpenerTakes().then([this]() { return consume(); });
      }
    } else {
      opener.flush();
      return kj::READY_NOW;
    }
  }
}

kj::Maybe<kj::Promise<void>> DestinationMover::take(Forward& message, FrameView& frame) {
  if (message.is<Entry>()) return takeEntry(message, frame);
  KJ_IF_MAYBE (ended, checkForward(message, frame.content().size())) return kj::mv(*ended);
  KJ_IF_MAYBE (current, receiving) return takePart(*current, message, frame);
  KJ_IF_MAYBE (failed, message.tryGet<EntryFailed>()) {
    ledger.failed(forwardCheck.pathOf(failed->name), failed->problem);
  }
  if (message.is<Done>()) backwardCheck.sentDone();
  return pass(frame, Envelope::FORWARD);
}

kj::Maybe<kj::Promise<void>> DestinationMover::takeEntry(Forward& message, FrameView& frame) {
  auto& entry = message.get<Entry>();
  KJ_IF_MAYBE (ended, admit(entry, frame.content().size(), message)) return kj::mv(*ended);
  backwardCheck.sentEntry(false);  // bases are told here
  KJ_IF_MAYBE (ended, pass(frame, Envelope::FORWARD)) return kj::mv(*ended);
  if (entry.kind != EntryKind::FILE || entry.inlined || options.listing) return nullptr;
  opener.flush();
  auto& current = receiving.emplace();
  current.entry = forwardCheck.entryNumber();
  current.size = entry.size;
  current.stream = entry.stream;
  current.wantsBase = current.owesBase = entry.wantsBase;
  return awaitChange(current);
}

// One waits at a time: it is always the channel's reader.
kj::Promise<void> DestinationMover::awaitChange(Receiving& current) {
  auto paf = kj::newPromiseAndFulfiller<void>();
  current.waiter = kj::mv(paf.fulfiller);
  return kj::mv(paf.promise);
}

void DestinationMover::wake() {
  KJ_IF_MAYBE (current, receiving) {
    KJ_IF_MAYBE (waiter, current->waiter) {
      auto own = kj::mv(*waiter);
      current->waiter = nullptr;
      own->fulfill();
    }
  }
}

kj::Maybe<kj::Promise<void>> DestinationMover::takePart(Receiving& current, Forward& message, FrameView& frame) {
  bool isEnd = message.is<FileEnd>() || message.is<FileFailed>();
  if (current.way == Receiving::Way::FORWARDED) {
    if (isEnd) receiving = nullptr;
    return pass(frame, Envelope::FORWARD);
  }
  if (isEnd) return takeEnd(current, message);
  if (current.way == Receiving::Way::DROPPED) return nullptr;
  auto content = frame.content();
  DestinationPiece piece{DestinationPiece::Kind::DATA, 0, content.size()};
  KJ_SWITCH_ONEOF(message) {
    KJ_CASE_ONEOF(data, Data) {
      piece.offset = data.offset;
      piece.keeps = hold(content);
      piece.content = content;
      current.waitingBytes += content.size();
    }
    KJ_CASE_ONEOF(hole, Hole) piece = DestinationPiece{DestinationPiece::Kind::HOLE, hole.offset, hole.bytes};
    KJ_CASE_ONEOF(same, Same) piece = DestinationPiece{DestinationPiece::Kind::SAME, same.offset, same.bytes};
    KJ_CASE_ONEOF_DEFAULT KJ_UNREACHABLE;  // checked: nothing else is in a file
  }
  current.waiting.add(kj::mv(piece));
  work();
  if (current.waitingBytes + current.writingBytes > MAX_WAITING_BYTES) return awaitChange(current);
  return nullptr;
}

kj::Own<kj::Refcounted> DestinationMover::hold(kj::ArrayPtr<const kj::byte>& content) {
  auto here = chunk->chunk.bytes();
  if (content.begin() >= here.begin() && content.end() <= here.end()) return kj::addRef(*chunk);
  auto copy = kj::refcounted<HeldCopy>(kj::heapArray(content));
  content = copy->bytes;
  return kj::mv(copy);
}

kj::Maybe<kj::Promise<void>> DestinationMover::takeEnd(Receiving& current, Forward& message) {
  KJ_IF_MAYBE (failed, message.tryGet<FileFailed>()) {
    current.abandoned = copy(failed->problem);
    current.waiting.clear();
  } else {
    KJ_IF_MAYBE (bytes, message.get<FileEnd>().hash) {
      memcpy(current.wantedHash.emplace().bytes, bytes->begin(), HASH_BYTES);
    } else if (options.verify) {
      return broken({"a file that is verified ends with its hash"});
    }
    current.finishing = true;
  }
  work();
  if (receiving == nullptr) return nullptr;
  return awaitChange(current);
}

// Files --------------------------------------------------------------------------------------------------------------

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

// From the opener ----------------------------------------------------------------------------------------------------

kj::Promise<void> DestinationMover::fromOpener() {
  return nextPacket().then([this](Packet packet) { return frames(packet.frames, kj::mv(packet.fds)); }).then([this]() {
    return fromOpener();
  });
}

kj::Promise<void> DestinationMover::frames(kj::ArrayPtr<kj::byte> bytes, kj::Vector<int> fds) {
  while (bytes.size() > 0) {
    kj::ArrayPtr<const kj::byte> left = bytes;
    auto next = packetReader.next(left);
    KJ_IF_MAYBE (one, next) {
      if (one->is<FrameError>()) return broken(one->get<FrameError>());
      auto frame = bytes.slice(0, bytes.size() - left.size());
      bytes = bytes.slice(frame.size(), bytes.size());
      KJ_IF_MAYBE (inside, takeOut(frame, Envelope::BACKWARD)) {
        KJ_IF_MAYBE (ended, takeBackward(*inside)) return kj::mv(*ended);
      } else {
        KJ_IF_MAYBE (ended, takeOpened(*one->get<FrameView*>(), fds)) return kj::mv(*ended);
      }
    } else {
      return broken({"a packet holds whole frames"});
    }
  }
  if (!fds.empty()) return broken({"a descriptor belongs to a file that was opened"});
  writer.flush();
  return whenSendable();
}

kj::Maybe<kj::Promise<void>> DestinationMover::takeBackward(kj::ArrayPtr<kj::byte> frame) {
  FrameView view(frame, messageOf(frame));
  auto parsed = parseBackward(view);
  if (parsed.is<FrameError>()) return broken(parsed.get<FrameError>());
  auto& message = parsed.get<Backward>();
  KJ_IF_MAYBE (error, backwardCheck.check(message)) return broken(*error);
  writer.put(frame);
  KJ_SWITCH_ONEOF(message) {
    KJ_CASE_ONEOF(ready, Ready) guard.ready(ready.into);
    KJ_CASE_ONEOF(refused, Refused) return farewell(kj::mv(refused.problem));
    KJ_CASE_ONEOF(summary, Summary) return farewell(summary);
    KJ_CASE_ONEOF(failed, DestinationFailed) {
      ledger.failed(failed.entry, failed.path, failed.problem);
      KJ_IF_MAYBE (current, receiving) {
        // In place of `opened`.
        if (current->entry == failed.entry && current->way == Receiving::Way::AWAITED) {
          current->way = Receiving::Way::DROPPED;
          if (current->owesBase) tellBase(*current, 0);
          wake();
        }
      }
    }
    KJ_CASE_ONEOF_DEFAULT break;
  }
  return nullptr;
}

kj::Maybe<kj::Promise<void>> DestinationMover::takeOpened(FrameView& frame, kj::Vector<int>& fds) {
  auto parsed = parseToMover(frame);
  if (parsed.is<FrameError>()) return broken(parsed.get<FrameError>());
  if (!parsed.get<ToMover>().is<Opened>())
    return broken({"a destination's opener sends what goes backward, or opened"});
  auto& opened = parsed.get<ToMover>().get<Opened>();
  KJ_IF_MAYBE (current, receiving) {
    if (current->way != Receiving::Way::AWAITED || current->entry != opened.entry) {
      return broken({"what is opened was announced, and is opened once"});
    }
    if (fds.empty() && !opened.resumed && !opened.hasBase) {
      current->way = Receiving::Way::FORWARDED;
      if (current->owesBase) tellBase(*current, 0);
      wake();
      return nullptr;
    }
    if (fds.size() != (opened.hasBase ? 2u : 1u)) return broken({"what is opened brings its descriptors"});
    current->way = Receiving::Way::WRITTEN;
    current->fds = kj::mv(fds);
    fds = {};
    kj::Maybe<int> base;
    if (opened.hasBase) base = current->fds[1];
    current->file = kj::heap<DestinationFile>(
        current->fds[0], base,
        DestinationFile::Form{current->size, current->stream, opened.resumed, options.verify, options.sparse});
    if (current->owesBase) {
      work();  // and then wakes
    } else {
      wake();
    }
    return nullptr;
  }
  return broken({"what is opened was announced, and is opened once"});
}

// The last message was put: it goes out, and then all ends.
kj::Promise<void> DestinationMover::farewell(MoverEnd how) {
  writer.flush();
  return whenSendable(0).then([this, how = kj::mv(how)]() mutable {
    channel->finish();
    return over(kj::mv(how));
  });
}

}  // namespace

kj::Own<Mover> newDestinationMover(kj::UnixEventPort& port, kj::AutoCloseFd opener, kj::Own<BulkChannel> channel,
                                   const MoverOptions& options, MoverGuard& guard) {
  return kj::heap<DestinationMover>(port, kj::mv(opener), kj::mv(channel), options, guard);
}

}  // namespace postern::transfer
