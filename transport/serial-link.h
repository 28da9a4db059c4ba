#pragma once
// SerialLink: sessions, one after the other, over a pipe that has no notion of them: a virtio-serial port in the guest,
// the chardev's Unix socket on the host.
//
// Such a pipe delivers in order, but it may begin with what a dead process wrote, may lose a contiguous run when either
// end reconnects, and never says that the peer was replaced. So both ends send SYNC frames:
//
//   SYNC = SYNC_WORD[16] | frame header (kind HELLO, tag 0) | HELLO[112]                      136 bytes
//
// The epoch of an end is the first 8 bytes of its HELLO's nonce. The link is UP when a SYNC is heard that echoes our
// current epoch: the peer is alive now, since nobody else can know it. The rules, for either end:
//
//   1. The word counts at every byte, inside an unfinished frame too, which is then dropped. What stands before it is
//      thrown away while not UP.
//   2. While not UP: SYNC(R=1) at once, again after limits::SYNC_RETRY_FIRST, doubling to SYNC_RETRY_MAX.
//   3. SYNC(R=1) is answered, at the next frame boundary, by one SYNC however many came; R=0 never is. R of every SYNC
//      sent is "I am not UP". Reading never waits for writing.
//   4. An epoch serves one session. It is replaced when that session ends, for whatever reason, and only then: a new
//      epoch for each SYNC heard would have both ends run after each other for ever.
//   5. A session ends by: a SYNC from a new epoch; the device losing its peer; a header that is none (the word's own
//      first bytes are not yet one), a body over the bound, a word without a valid SYNC behind it; the end of the pipe;
//      close(). The frame that was being written is cut short, and SYNC(R=1) with the new epoch goes out at once.
//   6. Frames count only when UP and with the tag of both epochs. Others are skipped.
//   7. A SYNC that is owed goes out before any later frame: it may be what brings the peer UP, which throws away what
//      stands before it. What it says is what is true when its first byte goes out.
//
// Why nothing stale gets into a session: its tag needs both epochs. A SYNC that echoes our epoch was written after the
// peer had heard it; what follows it was written later still, by that process with that epoch or, after another SYNC,
// by its successor. A frame of an older session is therefore always in front of the SYNC that brought this one UP,
// where everything is thrown away. Only a run lost in the middle can put foreign bytes behind it; then a tag, a header,
// or at last the AEAD fails.
//
// Recovery after the last fault takes a round trip and a half and no timer, unless a SYNC itself was lost. The link
// does not notice a frame that is lost whole, nor one whose rest never comes: the session's deadlines do, and close it.
//
// Memory: below 4 KiB in all until a session is authenticated(); later, besides, one unfinished frame. No timer runs
// while UP. Lives on one event loop; not reentrant.

#include <kj/async.h>
#include <kj/one-of.h>
#include <kj/timer.h>

#include "protocol/byte-pipe.h"
#include "protocol/frame-link.h"
#include "protocol/hello.h"
#include "protocol/limits.h"
#include "protocol/random.h"
#include "protocol/read-scratch.h"
#include "transport/serial-reader.h"
#include "transport/serial-writer.h"

namespace postern {

class SerialLink {
 public:
  // `offer` says what this end is and can do: role, versions, suites, patterns, hints. The link fills in transport,
  // nonce, echo and reply. All references outlive the link. Nothing is read or written before accept().
  SerialLink(BytePipe& pipe, const Hello& offer, Random& random, kj::Timer& timer, ReadScratch& scratch);
  ~SerialLink() noexcept(false);
  KJ_DISALLOW_COPY(SerialLink);

  // Resolves when the link is UP, with the session's connection; or with ENDED, and then always ENDED. It has no
  // deadline: a peer may be away for days. To be called when the previous connection has given a LinkEnd or has been
  // destroyed, and not while another call waits; until it is called nothing is read and no SYNC is repeated. Dropping
  // the promise stops the wait and loses nothing. The link must outlive the promise.
  //
  // The connection: destroying it is close(). close() drops bytes that were read and not handed out (the peer's SYNC
  // may be among them; our own makes it send another), ends the life of bodies that were, and sends as much of the SYNC
  // as the pipe takes. It may be destroyed after the link, and then does nothing.
  kj::Promise<kj::OneOf<kj::Own<FrameLink>, LinkEnd>> accept();

  // What the HELLO says from the next epoch on, as when enrolment is over and the pinned key counts. With a connection
  // alive that is when it ends; without one, a new epoch begins now.
  void offer(const Hello& offer);

  // Why the last complete SYNC that was not accepted was not: to tell a person that the other end is too old, or has
  // the same role. Unauthenticated. Null when a SYNC has been accepted since.
  kj::Maybe<HelloError> lastRefusal() const { return refusal; }

 private:
  class Connection;
  using Accepted = kj::OneOf<kj::Own<FrameLink>, LinkEnd>;
  enum class Heard { NOTHING_VALID, SAME_EPOCH, NEW_EPOCH };

  BytePipe& pipe;
  Random& random;
  kj::Timer& timer;
  ReadScratch& scratch;

  Hello offered;
  Hello own;              // of the current epoch; echo and reply are filled in when a SYNC is written
  kj::Maybe<Hello> peer;  // as last heard
  std::array<kj::byte, HELLO_BYTES> peerBytes{};
  kj::Maybe<HelloError> refusal;

  kj::Maybe<Connection&> live;  // not null: UP
  SerialReader reader;
  SerialWriter writer;
  bool connected = true;       // the device has a peer, as far as the last read says
  bool moreMayBeThere = true;  // the last read found something
  size_t readThisTurn = 0;

  kj::Duration retryAfter = limits::SYNC_RETRY_FIRST;
  kj::TimePoint retryAt;

  void beginEpoch();
  void restartRetries();
  void encodeSync(kj::ArrayPtr<kj::byte> out);
  PipeState fill(size_t atMost);
  Heard hear(const SerialReader::Sync& sync);
  bool peerEchoesUs() const;

  kj::Promise<Accepted> listen();
  kj::Promise<Accepted> listenLater();
  kj::Own<FrameLink> connect();

  kj::OneOf<Frame, NoFrame, LinkEnd> readFrame(Connection& connection);
  kj::Promise<void> whenReadable();
  LinkEnd endSession(LinkEnd why);
  void lostPeer();
};

}  // namespace postern
