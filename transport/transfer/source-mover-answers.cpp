// What comes back over the channel to a source's mover.

#include "transport/transfer/source-mover.h"

namespace postern::transfer {

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

// T93
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

}  // namespace postern::transfer
