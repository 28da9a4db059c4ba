// The files that a source's mover sends.

#include "protocol/block-pool.h"
#include "transport/transfer/data-block.h"
#include "transport/transfer/source-mover.h"

namespace postern::transfer {

namespace {

// What one run reads is being sent while the next one reads. A quarter, so that a core's cache still has it then.
constexpr size_t BATCH_BLOCKS = READ_AHEAD_BYTES / 4 / BlockPool::BLOCK_BYTES;
static_assert(BATCH_BLOCKS >= CHUNK_BYTES / DATA_BYTES);
// Handed to the file for one run: more than a run compares.
constexpr size_t RUN_HASHES = 2 * STEP_BYTES / CHUNK_BYTES;

}  // namespace

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

}  // namespace postern::transfer
