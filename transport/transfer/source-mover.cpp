#include "transport/transfer/source-mover.h"

#include "protocol/wire-int.h"

namespace postern::transfer {

namespace {

bool needsDescriptor(const Entry& entry) {
  return entry.kind == EntryKind::FILE && !entry.inlined;
}

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

}  // namespace

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

kj::Own<Mover> newSourceMover(kj::UnixEventPort& port, kj::AutoCloseFd opener, kj::Own<BulkChannel> channel,
                              const MoverOptions& options, MoverGuard& guard) {
  return kj::heap<SourceMover>(port, kj::mv(opener), kj::mv(channel), options, guard);
}

}  // namespace postern::transfer
