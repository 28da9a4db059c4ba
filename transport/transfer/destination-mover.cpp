#include "transport/transfer/destination-mover.h"

namespace postern::transfer {

namespace {

// Of content that does not lie in one chunk.
struct HeldCopy final : public kj::Refcounted {
  kj::Array<kj::byte> bytes;
  explicit HeldCopy(kj::Array<kj::byte> bytes) : bytes(kj::mv(bytes)) {}
};

}  // namespace

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
  current.waitingBytes += PIECE_BYTES;
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
    current.waitingBytes = 0;
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

kj::Own<Mover> newDestinationMover(kj::UnixEventPort& port, kj::AutoCloseFd opener, kj::Own<BulkChannel> channel,
                                   const MoverOptions& options, MoverGuard& guard) {
  return kj::heap<DestinationMover>(port, kj::mv(opener), kj::mv(channel), options, guard);
}

}  // namespace postern::transfer
