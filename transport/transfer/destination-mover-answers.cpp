// What a destination's opener says to its mover.

#include "transport/transfer/destination-mover.h"

namespace postern::transfer {

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

}  // namespace postern::transfer
