#pragma once
// BulkMux: a session's bulk channels: their numbers, the order in which they send (round robin, a record each), and
// what the peer's BULK records mean.
//
// Numbers are the opener's: odd the guest's, even (from 2) the host's, never used twice in a session. A record for a
// number that was never open is a breach; for one that has closed it is late, and is dropped. FINISHED and RESET may
// come before the peer's offer, which travels in RPC: they are kept for accept(). Owned by the session.

#include <kj/function.h>
#include <kj/timer.h>

#include <deque>
#include <map>
#include <unordered_map>

#include "protocol/block-pool.h"
#include "protocol/bulk-channel.h"
#include "protocol/hello.h"
#include "protocol/record-writer.h"

namespace postern {

// What the opener tells the other end, in an RPC call.
struct BulkOffer {
  uint32_t channel;
  uint32_t credit;
};

// Why a record, or an offer, breaks the rules. Ends the session.
enum class BulkError {
  UNKNOWN_CHANNEL,
  BAD_NUMBER,       // offer: the sender's own parity, 0, or a live channel
  CREDIT_OVERRUN,   // more bytes than were granted
  CREDIT_OVERFLOW,  // more credit than a window can have
  AFTER_FINISH,     // bytes behind FINISHED
  TOO_MANY,         // channels
};
kj::StringPtr describe(BulkError error);

class BulkMux final : public RecordSource {
 public:
  BulkMux(Role self, BlockPool& pool, kj::Timer& timer, kj::Function<void()> wake);
  ~BulkMux() noexcept(false);
  KJ_DISALLOW_COPY(BulkMux);

  struct Opened {
    kj::Own<BulkChannel> channel;
    BulkOffer offer;
  };
  // Null when limits::MAX_BULK_CHANNELS are open. When the session is over, open() and accept() give channels that say
  // so.
  kj::Maybe<Opened> open();
  kj::OneOf<kj::Own<BulkChannel>, BulkError> accept(const BulkOffer& untrustedOffer);
  size_t openChannels() const { return channels.size(); }

  // The session's side. `storage` holds the record's data.
  kj::Maybe<BulkError> receive(const Record& record, kj::Array<kj::byte> storage);
  kj::Maybe<OutgoingRecord> nextRecord() override;
  void sessionEnded();

 private:
  friend class _::ChannelState;

  const Role self;
  BlockPool& pool;
  kj::Timer& timer;
  kj::Function<void()> wake;
  // Channel states unregister themselves; the mux outlives their registration.
  std::unordered_map<uint32_t, _::ChannelState*> channels;
  std::deque<_::ChannelState*> ready;        // have a record to send; each once
  std::deque<_::ChannelState*> creditReady;  // have credit to grant; each once
  std::deque<uint32_t> resets;               // to be sent; their channels are gone
  // Finished channels whose handle is gone but whose last bytes are not.
  std::unordered_map<uint32_t, kj::Own<_::ChannelState>> lingering;
  // What came for peer's numbers that are not live: not yet accepted, or closed. The lowest, which are the oldest, are
  // forgotten when there are more than channels could be.
  struct Early {
    bool finished = false;
    bool reset = false;
  };
  std::map<uint32_t, Early> early;
  uint32_t nextOwnNumber;
  uint32_t highestPeerNumber = 0;
  uint64_t windowsGranted = 0;
  bool ended = false;

  bool isOwnNumber(uint32_t number) const;
  bool wasOpen(uint32_t number) const;
  void makeReady(_::ChannelState& channel);
  void makeCreditReady(_::ChannelState& channel);
  void sendReset(uint32_t number);
  void linger(kj::Own<_::ChannelState> channel);
  kj::Maybe<BulkError> receiveFor(_::ChannelState& channel, const Record& record, kj::Array<kj::byte> storage);
  kj::Maybe<BulkError> receiveEarly(const RecordHeader& header);
  void forget(_::ChannelState& channel);
  uint32_t firstWindow();
};

}  // namespace postern
