#pragma once
// ChannelState: what BulkChannel, its chunks and BulkMux share of one channel. Internal to the three.
//
// Owned by reference count: the channel's handle and every chunk own it; the mux owns it only while it lingers (the
// handle is gone but finished bytes are still to be sent). `mux` is null once the channel has left it: then nothing can
// be sent or granted.

#include <kj/refcount.h>

#include <deque>

#include "protocol/bulk-mux.h"

namespace postern::_ {

class ChannelState final : public kj::Refcounted {
 public:
  // How the peer learns of the first window: the opener's stands in the offer, the other end sends it in a record.
  enum class GrantBy { OFFER, RECORD };
  ChannelState(BulkMux& mux, uint32_t number, uint32_t window, GrantBy grantBy, uint32_t sendCredit);
  ~ChannelState() noexcept(false);

  const uint32_t number;

  // The handle's side, as BulkChannel documents it.
  size_t sendable() const;
  kj::Promise<bool> whenSendable();
  BulkBlock newBlock();
  void send(BulkBlock block, size_t size);
  kj::Promise<bool> write(kj::ArrayPtr<const kj::byte> bytes);
  void finish();
  void reset();
  kj::Promise<BulkEnd> whenBroken();
  kj::Promise<kj::OneOf<BulkChunk, BulkEnd>> read();
  void handleDropped();
  void chunkDropped(size_t bytes);

  // The mux's side.
  kj::Maybe<BulkError> receiveData(kj::Array<kj::byte> storage, kj::ArrayPtr<const kj::byte> data);
  kj::Maybe<BulkError> receiveCredit(uint32_t untrustedAmount);
  kj::Maybe<BulkError> receiveFinished();
  void receiveReset();
  bool hasRecord() const { return !sendQueue.empty(); }
  bool peerHasFinished() const { return peerFinished; }
  OutgoingRecord takeRecord();
  uint32_t takeOwedCredit();
  void sessionEnded();
  uint32_t reservedWindow() const { return reserved; }

  bool inReadyList = false;
  bool inCreditList = false;

 private:
  struct Waiting {
    kj::Array<kj::byte> storage;
    kj::ArrayPtr<const kj::byte> data;
  };

  BulkMux* mux;

  // Sending.
  uint32_t sendCredit;  // of the peer's window, 0 until it has granted some
  std::deque<OutgoingRecord> sendQueue;
  bool sendEnded = false;  // finish() or reset() was called, or the peer has reset
  kj::Maybe<kj::Own<kj::PromiseFulfiller<bool>>> sendWaiter;

  // Receiving. peerCredit + held + owedCredit + (what is not yet worth granting) == window.
  uint32_t window;
  uint32_t reserved;  // of limits::BULK_WINDOWS_PER_LINK; at least `window`
  uint32_t peerCredit = 0;
  uint32_t held = 0;  // cost of what is in the queue and in live chunks
  uint32_t owedCredit = 0;
  uint32_t turnedOver = 0;
  kj::TimePoint turnoverBegan;
  std::deque<Waiting> receiveQueue;
  bool peerFinished = false;
  bool wasReset = false;
  bool handleGone = false;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> readWaiter;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<BulkEnd>>> breakWaiter;

  void adaptWindow(uint32_t cost);
  void grant();
  void endSending();
  void wakeSender(bool canSend);
  void wakeReader();
  void broke(BulkEnd how);
  void leave();
};

}  // namespace postern::_
