// The source's mover: frames of its opener go over the channel as they came, files are read and sent by itself; what
// comes back goes to the opener, but for bases and their hashes, which are its own.

#include "protocol/block-pool.h"
#include "protocol/wire-int.h"
#include "transport/transfer/data-block.h"
#include "transport/transfer/mover-core.h"
#include "transport/transfer/source-file.h"

namespace postern::transfer {

namespace {

// One half is being sent while the other is being read.
constexpr size_t BATCH_BLOCKS = READ_AHEAD_BYTES / 2 / BlockPool::BLOCK_BYTES;
static_assert(BATCH_BLOCKS >= CHUNK_BYTES / DATA_BYTES);
// Hashes of a base that wait for the file to be read so far: of half a gigabyte. Above it the channel is not read.
constexpr size_t MAX_WAITING_HASHES = 2048;
// Handed to the file for one run: more than a run compares.
constexpr size_t RUN_HASHES = 2 * STEP_BYTES / CHUNK_BYTES;

bool needsDescriptor(const Entry& entry) {
  return entry.kind == EntryKind::FILE && !entry.inlined;
}

class SourceMover final : public MoverCore {
 public:
  SourceMover(kj::UnixEventPort& port, kj::AutoCloseFd opener, kj::Own<BulkChannel> channel,
              const MoverOptions& options, MoverGuard& guard)
      : MoverCore(port, kj::mv(opener), kj::mv(channel), options, guard),
        lastTold(port.getTimer().now()),
        // While a file is sent nothing is read from it, and it has no reason to leave before the end.
        openerGone(this->opener.whenGone().then([this]() { openerEnded(); }).eagerlyEvaluate(nullptr)) {}

 private:
  // The file that is being sent.
  struct Sending {
    uint64_t entry;
    kj::String path;
    int fd;
    kj::Maybe<uint64_t> base;
    std::deque<Hash> hashes;                                // that came and were not yet handed on
    kj::Maybe<Problem> givenUp;                             // by the destination
    kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> waiter;  // for base or hashes
    std::deque<SourcePiece> pieces;
  };

  // Of the packet that came last.
  kj::ArrayPtr<kj::byte> rest;
  kj::Vector<int> fds;
  FrameReader packetReader;

  kj::Maybe<Sending> sending;
  FrameReader channelReader;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> hashRoom;
  kj::TimePoint lastTold;
  uint64_t told = 0;
  kj::Promise<void> openerGone;

  kj::Promise<void> fromOpener() override;
  kj::Promise<void> frames();
  kj::Maybe<kj::Promise<void>> take(Forward& message, FrameView& frame);
  kj::Maybe<kj::Promise<void>> takeEntry(Forward& message, FrameView& frame);
  kj::Promise<void> finishForward();

  kj::Promise<void> sendFile(const Entry& entry, int fd);
  kj::Promise<void> proceed(kj::Own<SourceFile> file);
  kj::Promise<void> sendPieces();
  void sendPiece(SourcePiece& piece);
  kj::Promise<void> endFile(SourceFile& file);
  kj::Promise<void> awaitNews();
  void news();
  void provide(SourceFile& file);
  void tellSent();

  kj::Promise<void> fromChannel() override;
  kj::Promise<void> consume(kj::ArrayPtr<const kj::byte> bytes);
  kj::Maybe<kj::Promise<void>> takeBackward(Backward& message, FrameView& frame);
  void takeBase(const Base& base);
  void takeHashes(const Hashes& hashes);
  kj::Promise<void> afterBackward();

  void dropFiles() override { sending = nullptr; }
};

// From the opener ----------------------------------------------------------------------------------------------------

// Content in all frames of a packet, as their headers have it.
size_t contentIn(kj::ArrayPtr<const kj::byte> frames) {
  size_t result = 0;
  while (frames.size() >= FRAME_HEADER_BYTES) {
    auto bytes = frameBytes(frames);
    if (!bytes.is<size_t>() || bytes.get<size_t>() > frames.size()) break;
    result += getLittleEndian<uint32_t>(frames.begin() + 4);
    frames = frames.slice(bytes.get<size_t>(), frames.size());
  }
  return result;
}

kj::Promise<void> SourceMover::fromOpener() {
  return nextPacket()
      .then([this](Packet packet) -> kj::Promise<void> {
        rest = packet.frames;
        fds = kj::mv(packet.fds);
        size_t content = contentIn(rest);
        if (content == 0) return frames();
        return guard.pace(content).then([this]() { return frames(); });
      })
      .then([this]() { return fromOpener(); });
}

kj::Promise<void> SourceMover::frames() {
  while (rest.size() > 0) {
    kj::ArrayPtr<const kj::byte> left = rest;
    auto next = packetReader.next(left);
    KJ_IF_MAYBE (one, next) {
      if (one->is<FrameError>()) return broken(one->get<FrameError>());
      size_t bytes = rest.size() - left.size();
      auto frame = rest.slice(0, bytes);
      rest = rest.slice(bytes, rest.size());
      KJ_IF_MAYBE (inside, takeOut(frame, Envelope::FORWARD)) {
        FrameView view(*inside, messageOf(*inside));
        auto parsed = parseForward(view);
        if (parsed.is<FrameError>()) return broken(parsed.get<FrameError>());
        KJ_IF_MAYBE (wait, take(parsed.get<Forward>(), view)) {
          return wait->then([this]() { return frames(); });
        }
      } else {
        return broken({"a source's opener sends what goes forward, and nothing else"});
      }
    } else {
      return broken({"a packet holds whole frames"});
    }
  }
  if (!fds.empty()) return broken({"a descriptor belongs to a file that is not inlined"});
  writer.flush();
  tellSent();
  return whenSendable();
}

kj::Maybe<kj::Promise<void>> SourceMover::take(Forward& message, FrameView& frame) {
  if (message.is<Entry>()) return takeEntry(message, frame);
  KJ_IF_MAYBE (ended, checkForward(message, frame.content().size())) return kj::mv(*ended);
  KJ_SWITCH_ONEOF(message) {
    KJ_CASE_ONEOF(end, FileEnd) {
      KJ_IF_MAYBE (hash, end.hash) ledger.verified(forwardCheck.entryNumber(), *hash);
    }
    KJ_CASE_ONEOF(failed, EntryFailed) ledger.failed(forwardCheck.pathOf(failed.name), failed.problem);
    KJ_CASE_ONEOF_DEFAULT break;
  }
  moved += frame.content().size();
  writer.put(frame.whole());
  if (message.is<Done>()) return finishForward();
  return nullptr;
}

kj::Promise<void> SourceMover::finishForward() {
  backwardCheck.sentDone();
  writer.flush();
  return whenSendable(0).then([this]() { channel->finish(); });
}

kj::Maybe<kj::Promise<void>> SourceMover::takeEntry(Forward& message, FrameView& frame) {
  auto& entry = message.get<Entry>();
  KJ_IF_MAYBE (ended, admit(entry, frame.content().size(), message)) return kj::mv(*ended);
  backwardCheck.sentEntry(entry.wantsBase);
  moved += frame.content().size();
  writer.put(frame.whole());
  if (!needsDescriptor(entry) || options.listing) return nullptr;
  if (fds.empty() || entry.stream) {
    // Its bytes come from the opener.
    if (entry.wantsBase) return broken({"a file that wants a base comes with its descriptor"});
    return nullptr;
  }
  int fd = fds[0];
  if (fds.size() > 1) return broken({"a file has one descriptor"});
  fds.clear();
  return sendFile(entry, fd);
}

// Files --------------------------------------------------------------------------------------------------------------

kj::Promise<void> SourceMover::sendFile(const Entry& entry, int fd) {
  writer.flush();
  auto& current = sending.emplace();
  current.entry = forwardCheck.entryNumber();
  current.path = forwardCheck.pathOf(entry.name);
  current.fd = fd;
  auto file = kj::heap<SourceFile>(fd, entry.size, options.sparse, options.verify);
  if (!entry.wantsBase) return proceed(kj::mv(file));
  return awaitNews().then([this, file = kj::mv(file), size = entry.size]() mutable {
    KJ_IF_MAYBE (base, KJ_ASSERT_NONNULL(sending).base) {
      file->baseBytes = *base >= size ? size : *base - *base % CHUNK_BYTES;
      forwardCheck.toldBase(file->baseBytes);
    } else {
      forwardCheck.toldBase(0);  // given up
    }
    return proceed(kj::mv(file));
  });
}

// What was read last is sent while what comes next is being read.
kj::Promise<void> SourceMover::proceed(kj::Own<SourceFile> file) {
  auto& current = KJ_ASSERT_NONNULL(sending);
  for (auto& piece : file->pieces) current.pieces.push_back(kj::mv(piece));
  file->pieces.clear();
  if (current.givenUp != nullptr) return endFile(*file).attach(kj::mv(file));
  provide(*file);
  if (file->state == SourceFile::State::READING && file->hasHashes()) {
    auto reading = files().run(kj::mv(file));
    return sendPieces()
        .then([reading = kj::mv(reading)]() mutable { return kj::mv(reading); })
        .then([this](kj::Own<SourceFile> next) { return proceed(kj::mv(next)); });
  }
  auto sent = sendPieces();
  if (file->state != SourceFile::State::READING) {
    auto& reference = *file;
    return sent.then([this, &reference]() { return endFile(reference); }).attach(kj::mv(file));
  }
  return sent.then([this]() { return awaitNews(); }).then([this, file = kj::mv(file)]() mutable {
    return proceed(kj::mv(file));
  });
}

void SourceMover::provide(SourceFile& file) {
  auto& current = KJ_ASSERT_NONNULL(sending);
  while (file.blocks.size() < BATCH_BLOCKS) {
    auto block = channel->newBlock();
    file.blocks.add(kj::mv(block.storage));
  }
  while (file.hashes.size() < RUN_HASHES && !current.hashes.empty()) {
    file.hashes.push_back(current.hashes.front());
    current.hashes.pop_front();
  }
  KJ_IF_MAYBE (waiter, hashRoom) {
    if (current.hashes.size() <= MAX_WAITING_HASHES / 2) {
      (*waiter)->fulfill();
      hashRoom = nullptr;
    }
  }
}

kj::Promise<void> SourceMover::sendPieces() {
  auto& current = KJ_ASSERT_NONNULL(sending);
  if (current.givenUp != nullptr) current.pieces.clear();
  if (current.pieces.empty()) return kj::READY_NOW;
  auto& next = current.pieces.front();
  size_t content = next.kind == SourcePiece::Kind::DATA ? size_t(next.bytes) : 0;
  auto paced = content == 0 ? kj::Promise<void>(kj::READY_NOW) : guard.pace(content);
  if (writer.waiting() > CHANNEL_UNSENT_BYTES) paced = paced.then([this]() { return whenSendable(); });
  return paced.then([this]() {
    auto& pieces = KJ_ASSERT_NONNULL(sending).pieces;
    auto piece = kj::mv(pieces.front());
    pieces.pop_front();
    sendPiece(piece);
    return sendPieces();
  });
}

void SourceMover::sendPiece(SourcePiece& piece) {
  Forward message;
  size_t content = 0;
  switch (piece.kind) {
    case SourcePiece::Kind::DATA:
      message.init<Data>(Data{piece.offset});
      content = size_t(piece.bytes);
      break;
    case SourcePiece::Kind::HOLE:
      message.init<Hole>(Hole{piece.offset, piece.bytes});
      break;
    case SourcePiece::Kind::SAME:
      message.init<Same>(Same{piece.offset, piece.bytes});
      break;
  }
  auto wrong = forwardCheck.check(message, content);
  KJ_ASSERT(wrong == nullptr, "what was read does not fit the file");
  if (content == 0) return send(message);
  moved += content;
  size_t bytes = closeDataFrame(piece.block, builder, piece.offset, content);
  writer.putBlock(kj::mv(piece.block), bytes);
  tellSent();
}

kj::Promise<void> SourceMover::endFile(SourceFile& file) {
  auto& current = KJ_ASSERT_NONNULL(sending);
  files().close(current.fd);
  Forward message;
  KJ_IF_MAYBE (problem, current.givenUp) {
    message.init<FileFailed>(FileFailed{copy(*problem)});
  } else if (file.state == SourceFile::State::FAILED) {
    if (file.problem.kind == ProblemKind::PROTOCOL) return over(kj::mv(file.problem));
    ledger.failed(current.entry, current.path, file.problem);
    message.init<FileFailed>(FileFailed{kj::mv(file.problem)});
  } else {
    message.init<FileEnd>();
    if (options.verify) {
      message.get<FileEnd>().hash = kj::heapArray(file.hash.asPtr());
      ledger.verified(current.entry, file.hash.asPtr());
    }
  }
  auto wrong = forwardCheck.check(message, 0);
  KJ_ASSERT(wrong == nullptr, "what was read does not fill the file");
  send(message);
  sending = nullptr;
  KJ_IF_MAYBE (waiter, hashRoom) {
    (*waiter)->fulfill();
    hashRoom = nullptr;
  }
  return kj::READY_NOW;
}

// Until a base or hashes have come, or the destination has given up.
kj::Promise<void> SourceMover::awaitNews() {
  auto& current = KJ_ASSERT_NONNULL(sending);
  writer.flush();
  if (current.givenUp != nullptr || !current.hashes.empty()) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  current.waiter = kj::mv(paf.fulfiller);
  return kj::mv(paf.promise);
}

void SourceMover::news() {
  KJ_IF_MAYBE (current, sending) {
    KJ_IF_MAYBE (waiter, current->waiter) {
      auto own = kj::mv(*waiter);
      current->waiter = nullptr;
      own->fulfill();
    }
  }
}

// Some times a second.
void SourceMover::tellSent() {
  auto now = port.getTimer().now();
  if (moved == told || now - lastTold < PROGRESS_INTERVAL || opener.isFull()) return;
  lastTold = now;
  told = moved;
  builder.init<schema::ToOpener>().setSent(moved);
  opener.put(builder);
  opener.flush();
}

// From the channel ---------------------------------------------------------------------------------------------------

kj::Promise<void> SourceMover::fromChannel() {
  return channel->read().then([this](kj::OneOf<BulkChunk, BulkEnd> next) -> kj::Promise<void> {
    if (next.is<BulkEnd>()) return channelEnded(next.get<BulkEnd>());
    auto chunk = kj::mv(next.get<BulkChunk>());
    auto bytes = chunk.bytes();
    return consume(bytes).attach(kj::mv(chunk)).then([this]() { return fromChannel(); });
  });
}

kj::Promise<void> SourceMover::consume(kj::ArrayPtr<const kj::byte> bytes) {
  for (;;) {
    auto next = channelReader.next(bytes);
    KJ_IF_MAYBE (one, next) {
      if (one->is<FrameError>()) return broken(one->get<FrameError>());
      auto& frame = *one->get<FrameView*>();
      auto parsed = parseBackward(frame);
      if (parsed.is<FrameError>()) return broken(parsed.get<FrameError>());
      KJ_IF_MAYBE (ended, takeBackward(parsed.get<Backward>(), frame)) return kj::mv(*ended);
    } else {
      return afterBackward();
    }
  }
}

// An opener that takes nothing, or hashes that are not yet wanted, stop the channel.
kj::Promise<void> SourceMover::afterBackward() {
  auto taken = whenOpenerTakes();
  KJ_IF_MAYBE (current, sending) {
    if (current->hashes.size() > MAX_WAITING_HASHES) {
      auto paf = kj::newPromiseAndFulfiller<void>();
      hashRoom = kj::mv(paf.fulfiller);
      return taken.then([room = kj::mv(paf.promise)]() mutable { return kj::mv(room); });
    }
  }
  return taken;
}

kj::Maybe<kj::Promise<void>> SourceMover::takeBackward(Backward& message, FrameView& frame) {
  KJ_IF_MAYBE (error, backwardCheck.check(message)) return broken(*error);
  KJ_SWITCH_ONEOF(message) {
    KJ_CASE_ONEOF(base, Base) {
      takeBase(base);
      return nullptr;
    }
    KJ_CASE_ONEOF(hashes, Hashes) {
      takeHashes(hashes);
      return nullptr;
    }
    KJ_CASE_ONEOF(ready, Ready) guard.ready(ready.into);
    KJ_CASE_ONEOF(failed, DestinationFailed) {
      ledger.failed(failed.entry, failed.path, failed.problem);
      KJ_IF_MAYBE (current, sending) {
        if (failed.entry == current->entry && current->givenUp == nullptr) {
          current->givenUp = copy(failed.problem);
          news();
        }
      }
    }
    KJ_CASE_ONEOF_DEFAULT break;
  }
  KJ_IF_MAYBE (ended, pass(frame, Envelope::BACKWARD)) return kj::mv(*ended);
  if (message.is<Refused>()) return over(kj::mv(message.get<Refused>().problem));
  if (message.is<Summary>()) return over(message.get<Summary>());
  return nullptr;
}

// Of a file that has ended here, both are of no use any more.
void SourceMover::takeBase(const Base& base) {
  if (!backwardCheck.concernsLast()) return;
  KJ_IF_MAYBE (current, sending) {
    current->base = base.bytes;
    news();
  }
}

void SourceMover::takeHashes(const Hashes& hashes) {
  if (!backwardCheck.concernsLast()) return;
  KJ_IF_MAYBE (current, sending) {
    for (size_t at = 0; at < hashes.hashes.size(); at += HASH_BYTES) {
      Hash hash;
      memcpy(hash.bytes, hashes.hashes.begin() + at, HASH_BYTES);
      current->hashes.push_back(hash);
    }
    news();
  }
}

}  // namespace

kj::Own<Mover> newSourceMover(kj::UnixEventPort& port, kj::AutoCloseFd opener, kj::Own<BulkChannel> channel,
                              const MoverOptions& options, MoverGuard& guard) {
  return kj::heap<SourceMover>(port, kj::mv(opener), kj::mv(channel), options, guard);
}

}  // namespace postern::transfer
