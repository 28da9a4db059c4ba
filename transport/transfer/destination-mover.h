#pragma once
// DestinationMover: the destination's mover. What comes over the channel goes to its opener, but for the bytes of files
// for which the opener passes a descriptor: those it writes (destination-mover-files.cpp). Of the base that came with a
// file it tells the hashes. What the opener says (destination-mover-answers.cpp) goes back over the channel.

#include "transport/transfer/destination-file.h"
#include "transport/transfer/mover-core.h"

namespace postern::transfer {

// Bytes of a file that wait to be written or are being written, above which the channel is not read: no more than its
// credit, unless frames come in pieces, which are copied.
constexpr size_t MAX_WAITING_BYTES = READ_AHEAD_BYTES;

// What a piece costs beside its content, counted with it: else holes, or bytes one by one, would wait without a bound.
constexpr size_t PIECE_BYTES = 256;

class DestinationMover final : public MoverCore, private kj::TaskSet::ErrorHandler {
 public:
  DestinationMover(kj::UnixEventPort& port, kj::AutoCloseFd opener, kj::Own<BulkChannel> channel,
                   const MoverOptions& options, MoverGuard& guard)
      : MoverCore(port, kj::mv(opener), kj::mv(channel), options, guard) {}

 private:
  // What content lies in, until it is written: its credit goes back then.
  struct HeldChunk final : public kj::Refcounted {
    BulkChunk chunk;
    explicit HeldChunk(BulkChunk chunk) : chunk(kj::mv(chunk)) {}
  };

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

}  // namespace postern::transfer
