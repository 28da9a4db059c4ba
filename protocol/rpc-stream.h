#pragma once
// RpcStream: a session's RPC records as a capnp::MessageStream.
//
// Outgoing messages are copied into an open record and sealed together at the end of the turn, so that a batch of calls
// costs one cipher call and one write. writeMessage() waits only above limits::RPC_QUEUE_BYTES. When the session ends,
// every pending and later write and read fails with a DISCONNECTED exception (a clean CLOSE by the peer: reads give
// end-of-stream), so that no caller is left hanging.
//
// A message that is too large to be sent is our bug and ends the stream likewise, but not the session.
//
// No descriptors: a message that has some to send is our bug; a peer has no way to send one.
// One loop. Owned by the session; the RPC system that uses it is destroyed before the session.

#include <capnp/serialize-async.h>
#include <kj/function.h>

#include <deque>

#include "protocol/block-pool.h"
#include "protocol/message-assembler.h"
#include "protocol/record-writer.h"

namespace postern {

class RpcStream final : public capnp::MessageStream, public RecordSource {
 public:
  // `wake` is called when there is something to send. `pool` outlives the stream.
  RpcStream(BlockPool& pool, kj::Function<void()> wake) : pool(pool), wake(kj::mv(wake)) {}
  KJ_DISALLOW_COPY(RpcStream);

  // The session's side ------------------------------------------------------------------------------------------

  // A record's data, in `storage`. An error ends the session.
  kj::Maybe<MessageError> receive(kj::Array<kj::byte> storage, kj::ArrayPtr<const kj::byte> data);
  // Whole messages wait that the RPC system has not taken: the link should not be read until whenDrained().
  bool isFull() const;
  // At least one waits.
  bool hasMessage() const { return !incoming.empty(); }
  kj::Promise<void> whenDrained();

  kj::Maybe<OutgoingRecord> nextRecord() override;

  // Resolves when less than limits::RPC_QUEUE_BYTES wait to be sent, or the stream has ended. For who feeds it.
  kj::Promise<void> whenTaken();
  bool hasEnded() const { return failure != nullptr; }

  // Nothing more will come or can be sent. With `clean`, what was received before is still delivered, then
  // end-of-stream.
  enum class End { CLEAN, FAILED };
  void sessionEnded(End how, kj::StringPtr why);

  // MessageStream -----------------------------------------------------------------------------------------------

  using capnp::MessageStream::tryReadMessage;
  using capnp::MessageStream::writeMessage;
  kj::Promise<kj::Maybe<capnp::MessageReaderAndFds>> tryReadMessage(kj::ArrayPtr<kj::AutoCloseFd> fdSpace,
                                                                    capnp::ReaderOptions options,
                                                                    kj::ArrayPtr<capnp::word> scratchSpace) override;
  kj::Promise<void> writeMessage(kj::ArrayPtr<const int> fds,
                                 kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments) override;
  kj::Promise<void> writeMessages(kj::ArrayPtr<kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>>> messages) override;
  kj::Maybe<int> getSendBufferSize() override;
  kj::Promise<void> end() override;

 private:
  BlockPool& pool;
  kj::Function<void()> wake;

  MessageAssembler assembler;
  std::deque<IncomingMessage> incoming;
  size_t incomingBytes = 0;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> reader;       // tryReadMessage() waits
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> drainWaiter;  // the session waits

  struct OpenRecord {
    kj::Array<kj::byte> buffer;
    size_t dataBytes = 0;
  };
  std::deque<OpenRecord> outgoing;
  size_t outgoingBytes = 0;
  kj::Maybe<kj::ForkedPromise<void>> sentPromise;  // while over the limit: resolves when below it
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> sentFulfiller;

  bool rpcIsDone = false;  // the RPC system reads no more
  bool endedCleanly = false;
  kj::Maybe<kj::Exception> failure;

  void checkSendable(kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments);
  void append(kj::ArrayPtr<const kj::byte> bytes);
  void appendMessage(kj::ArrayPtr<const kj::ArrayPtr<const capnp::word>> segments);
  kj::Promise<void> whenSent();
  IncomingMessage takeIncoming();
};

}  // namespace postern
