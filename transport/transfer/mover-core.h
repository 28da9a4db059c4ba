#pragma once
// MoverCore: what both movers are made of: opener's socket, channel, the checks of both directions, the thread for
// files, and the one place where a transfer ends.

#include <kj/timer.h>

#include "protocol/transfer/backward-check.h"
#include "protocol/transfer/forward-check.h"
#include "transport/transfer/channel-writer.h"
#include "transport/transfer/entry-ledger.h"
#include "transport/transfer/file-worker.h"
#include "transport/transfer/opener-link.h"

namespace postern::transfer {

// Frames that wait for credit, above which no more are taken from whoever makes them: as many as the channel has
// queued.
constexpr size_t CHANNEL_UNSENT_BYTES = size_t(128) << 10;
// An opener gets so long to take the last messages.
constexpr auto FAREWELL = 5 * kj::SECONDS;

class MoverCore : public Mover {
 public:
  kj::Promise<MoverEnd> run() override;
  uint64_t contentBytes() const override { return moved; }

 protected:
  MoverCore(kj::UnixEventPort& port, kj::AutoCloseFd socket, kj::Own<BulkChannel> channel, const MoverOptions& options,
            MoverGuard& guard);

  kj::UnixEventPort& port;
  OpenerLink opener;
  kj::Own<BulkChannel> channel;
  ChannelWriter writer;
  const MoverOptions options;
  MoverGuard& guard;
  ForwardCheck forwardCheck;
  BackwardCheck backwardCheck;
  EntryLedger ledger;
  FrameBuilder builder;
  uint64_t moved = 0;

  virtual kj::Promise<void> fromOpener() = 0;
  virtual kj::Promise<void> fromChannel() = 0;
  // The last words to the opener, if the transfer was broken off.
  virtual void leaveOpener() {}
  // No file is touched any more.
  virtual void dropFiles() = 0;

  // Ends the transfer, once; the first one counts. The promise never resolves: what waits for it is dropped.
  kj::Promise<void> over(MoverEnd how);
  kj::Promise<void> broken(FrameError error);  // a rule, by whoever sent it
  kj::Promise<void> channelEnded(BulkEnd how);
  kj::Promise<void> openerEnded();
  void internalError(kj::Exception&& exception);
  bool isOver() const { return ending == nullptr; }

  // The opener's next packet. Its descriptors are the worker's.
  struct Packet {
    kj::ArrayPtr<kj::byte> frames;
    kj::Vector<int> fds;
  };
  kj::Promise<Packet> nextPacket();
  FileWorker& files();

  // What is broken, if anything, before it goes on; the ledger knows the entry then.
  kj::Maybe<kj::Promise<void>> admit(const Entry& entry, size_t contentBytes, const Forward& message);
  kj::Maybe<kj::Promise<void>> checkForward(const Forward& message, size_t contentBytes);
  void send(const Forward& message);
  void send(const Backward& message);
  // Resolves once few enough bytes wait.
  kj::Promise<void> whenSendable(size_t limit = CHANNEL_UNSENT_BYTES);
  // To the opener; frames as they came.
  kj::Maybe<kj::Promise<void>> pass(const FrameView& frame, Envelope kind);
  kj::Promise<void> whenOpenerTakes();

 private:
  kj::Maybe<kj::Own<FileWorker>> worker;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<MoverEnd>>> ending;
  kj::Promise<void> openerTask = nullptr;
  kj::Promise<void> channelTask = nullptr;

  kj::Promise<MoverEnd> close(MoverEnd how);
};

}  // namespace postern::transfer
