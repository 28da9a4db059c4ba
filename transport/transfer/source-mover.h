#pragma once
// SourceMover: the source's mover. Frames of its opener go over the channel as they came, files are read and sent by
// itself (source-mover-files.cpp); what comes back (source-mover-answers.cpp) goes to the opener, but for bases and
// their hashes, which are its own.

#include "transport/transfer/mover-core.h"
#include "transport/transfer/source-file.h"

namespace postern::transfer {

// Hashes of a base that wait for the file to be read so far: of half a gigabyte. Above it the channel is not read.
constexpr size_t MAX_WAITING_HASHES = 2048;

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

}  // namespace postern::transfer
