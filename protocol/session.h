#pragma once
// Session: an authenticated, encrypted connection between a host and a guest, from ACCEPT to its end. It carries RPC
// (rpcStream()), bulk channels (bulk()) and answers PING; made by establish.h.
//
// Guarantees:
//  - Whatever is delivered was sent by the holder of the peer's keys, in this session, in this order, once.
//  - It ends at the first byte that is not so, and at a record that breaks a rule of docs/PROTOCOL.md. A peer whose
//  bytes do
//    not authenticate sees a bare close; one that breaks a rule gets CLOSE with a code.
//  - An end without an authenticated CLOSE is a failure, never an end-of-stream.
//  - However it ends, every promise of its streams and channels resolves or fails.
//  - An idle session holds no buffer and has no timer running.
//
// Keep-alive is the owner's: an RPC heartbeat, or ping(). One loop. The RPC system over rpcStream() is destroyed first.

#include <kj/async.h>
#include <kj/timer.h>

#include "protocol/block-pool.h"
#include "protocol/bulk-mux.h"
#include "protocol/frame-link.h"
#include "protocol/handshake.h"
#include "protocol/record-writer.h"
#include "protocol/rpc-stream.h"

namespace postern {

// What sessions of one event loop share. All outlive the sessions.
struct SessionEnvironment {
  kj::Timer& timer;
  BlockPool& pool;
  Random& random;
};

enum class EndReason {
  CLOSED_HERE,
  CLOSED_BY_PEER,  // `code` says why
  LINK_ENDED,      // the stream ended without CLOSE: the peer died, or somebody cut it
  PEER_RESTARTED,  // serial
  BAD_FRAME,
  BAD_RECORD,      // did not authenticate
  PROTOCOL_ERROR,  // authenticated, and against the rules or limits; `detail` says which
  PING_TIMEOUT,
  FAILED_HERE,  // an exception at this end, such as for want of memory
};

struct SessionEnd {
  EndReason reason;
  kj::Maybe<CloseCode> code;
  kj::StringPtr detail;  // static text, for logs
};
kj::String describe(const SessionEnd& end);

class Session final : private RecordSource {
 public:
  // `sealer` and `opener` are as the handshake and the CONFIRM and ACCEPT records left them. In an enrolment, only
  // CLOSE and COMMIT are legal until the commit.
  Session(Role self, kj::Own<FrameLink> link, RecordSealer sealer, RecordOpener opener, bool enrolment,
          const SessionEnvironment& environment);
  ~Session() noexcept(false);
  KJ_DISALLOW_COPY(Session);

  // ACCEPT, sealed by the sealer that this session was made with: goes before everything else.
  void sendFirst(kj::Array<kj::byte> frame) { writer.putSealed(kj::mv(frame)); }

  RpcStream& rpcStream() { return rpc; }
  BulkMux& bulk() { return bulkMux; }

  // Resolves when the session is over. May be called several times.
  kj::Promise<SessionEnd> onEnd() { return ended.addBranch(); }
  bool isOver() const { return over; }

  // The time of a PING's way and back, through both ends' event loops. If no answer comes within limits::PING_DEADLINE
  // the session ends with PING_TIMEOUT; the promise fails when the session ends first.
  kj::Promise<kj::Duration> ping();

  // Sends what RPC has queued, then CLOSE; resolves when both are with the pipe, or after limits::CLOSE_LINGER. The
  // session is over then. Bulk bytes that were not sent are dropped. A second call waits for the same end, with the
  // first one's code; the promise may outlive the session, and dropping it changes nothing.
  kj::Promise<void> close(CloseCode code);

  // For a peer that keeps to the protocol's form and asks too much: ends the session now, with CLOSE if the pipe takes
  // it. The reason is PROTOCOL_ERROR; `detail` is static.
  void breakOff(CloseCode code, kj::StringPtr detail);

  // Enrolment. Guest: commit() sends COMMIT and resolves on COMMITTED. Host: whenCommit() resolves on COMMIT,
  // confirmCommit() sends COMMITTED. After that the session is as any other.
  kj::Promise<void> commit();
  kj::Promise<void> whenCommit();
  void confirmCommit();

  // Whether fresh keys are due (limits::RENEW_AFTER, RENEW_AFTER_BYTES): the guest then makes a new session, which
  // replaces this one.
  bool isRenewalDue() const;

  uint64_t bytesSent() const { return writer.bytesSealed(); }
  uint64_t bytesReceived() const { return opener.bytesOpened(); }

 private:
  struct PendingPing {
    uint64_t number;
    kj::TimePoint sent;
    kj::Own<kj::PromiseFulfiller<kj::Duration>> fulfiller;
  };

  const Role self;
  kj::Own<FrameLink> link;
  RecordOpener opener;
  kj::Timer& timer;
  BlockPool& pool;
  const kj::TimePoint began;
  kj::TimePoint lastPeerRekey;

  bool over = false;
  bool enrolling;
  kj::Own<kj::PromiseFulfiller<SessionEnd>> endFulfiller;
  kj::ForkedPromise<SessionEnd> ended;

  RpcStream rpc;
  BulkMux bulkMux;

  // Control records that are owed, most urgent first.
  kj::Maybe<uint64_t> owedPong;
  kj::Maybe<uint64_t> owedPing;
  bool owedCommit = false;
  kj::Maybe<CloseCode> owedClose;
  bool closing = false;
  bool closeSent = false;
  bool breaking = false;  // in breakOff()
  uint64_t lastPing = 0;
  std::deque<PendingPing> pings;
  kj::Promise<void> pingDeadline = kj::READY_NOW;
  bool pingDeadlineRuns = false;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> commitWaiter;
  bool commitReceived = false;

  RecordWriter writer;
  kj::Promise<void> readTask;
  kj::Promise<void> closeTask = nullptr;

  // RecordSource: control records.
  kj::Maybe<OutgoingRecord> nextRecord() override;

  kj::Promise<void> readLoop();
  void receiveFrame(const Frame& frame);
  void receiveRecord(const Record& record, kj::Array<kj::byte> storage);
  void receivePong(uint64_t number);
  void receiveRekey();
  void receiveCommit();
  kj::Promise<void> watchPings();
  void linkEnded(LinkEnd why);
  void writingEnded();
  void breach(kj::StringPtr detail) { breakOff(CloseCode::PROTOCOL_ERROR, detail); }
  void failed(kj::Exception&& exception);
  void end(SessionEnd how);
};

}  // namespace postern
