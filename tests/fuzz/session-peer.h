#pragma once
// SessionPeer: a session whose peer is the fuzzer, which has the keys. The session, its loop, its clock and its RPC
// system are the product's; keys and HELLOs are fixed, so that a run needs no handshake.

#include <kj/async.h>
#include <kj/function.h>
#include <kj/timer.h>

#include <deque>
#include <vector>

#include "protocol/frame-reader.h"
#include "protocol/rpc-system.h"
#include "protocol/session.h"
#include "tests/fuzz/raw-sealer.h"
#include "tests/support/echo.h"
#include "tests/support/fake-pipe.h"
#include "tests/support/test-random.h"
#include "transport/stream-link.h"

namespace postern::fuzz {

class SessionPeer {
 public:
  enum class Kind { ENROLLED, ENROLMENT };
  SessionPeer(Role self, Kind kind);
  ~SessionPeer() noexcept(false);

  kj::EventLoop loop;
  kj::WaitScope waitScope;
  kj::TimerImpl timer;
  BlockPool pool;

  Session& session() { return *theSession; }
  // Whether the enrolment, if this is one, is over.
  bool isEnrolled() const { return enrolled; }

  // Sends one authentic record of these bytes, whatever they are.
  void sendRecord(kj::ArrayPtr<const kj::byte> inner);
  // Sends bytes that nobody sealed.
  void sendRaw(kj::ArrayPtr<const kj::byte> bytes) { incoming().inject(bytes); }
  void endStream() { incoming().end(); }
  // How much of what the session sends fits between the ends.
  void setCapacity(size_t bytes) { outgoing().capacity = bytes; }

  // Takes what the session has sent and judges it: whole frames, records that open in order, nothing behind CLOSE.
  void readAnswers();
  // Gets each of those records, decrypted.
  kj::Function<void(kj::ArrayPtr<const kj::byte>)> onAnswer = [](kj::ArrayPtr<const kj::byte>) {};

  // What a session's owner does. Each does nothing where the owner would not be allowed to.
  void startRpc();
  bool hasRpc() const { return rpc != nullptr; }
  void call();
  void ping();
  void close(CloseCode code);
  void continueEnrolment();
  void openChannel();
  void acceptChannel(BulkOffer untrustedOffer);
  void writeTo(size_t channel, size_t bytes);
  void writeAllTo(size_t channel, size_t bytes);
  void readFrom(size_t channel, bool keepChunk);
  void finish(size_t channel);
  void reset(size_t channel);
  void dropChannel(size_t channel);

  void settle() { waitScope.poll(); }
  void advance(kj::Duration by);

  // The session is over, or else this ends the process: nothing that waited for it still waits, and when its owner has
  // dropped everything no block is left.
  void judgeEnd();

 private:
  struct Channel {
    kj::Own<BulkChannel> handle;
    bool reading = false;
    bool writing = false;
  };

  const Role self;
  test::FakeWire wire;
  test::TestRandom random;
  ReadScratch scratch;
  LinkTag tag;
  RawSealer sealer;
  FrameReader frames;
  RecordOpener opener;
  bool closeSeen = false;

  kj::Own<Session> theSession;
  kj::Maybe<kj::Own<RpcConnection>> rpc;
  std::vector<kj::Own<Channel>> channels;
  std::deque<BulkChunk> kept;
  size_t waiting = 0;  // promises of the session that its owner waits for
  bool enrolled;
  bool commitBegun = false;
  kj::Vector<kj::Promise<void>> owners;

  test::FakeDirection& incoming() { return self == Role::HOST ? wire.toHost : wire.toGuest; }
  test::FakeDirection& outgoing() { return self == Role::HOST ? wire.toGuest : wire.toHost; }
  kj::Own<Session> makeSession(Kind kind);
  void judgeAnswer(const FrameReader::RawFrame& frame);
  // The promise must be resolved, one way or the other, when the session is over.
  template <typename T, typename Then>
  void await(kj::Promise<T> promise, Then then);
  void await(kj::Promise<void> promise);
};

}  // namespace postern::fuzz
