#pragma once
// SmallHost: a host for one VM, with the real protocol and no more around it than a test needs: an offer that is bound
// to the first guest's key, a pair, sessions one after the other, and what they heard. Kept in memory; it behaves as if
// each change were on disk at once.

#include <kj/async.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include "protocol/bundle.h"
#include "protocol/establish.h"
#include "protocol/guest.capnp.h"
#include "protocol/identity.h"
#include "protocol/read-scratch.h"
#include "protocol/rpc-system.h"

namespace postern::test {

class SmallHost final : private kj::TaskSet::ErrorHandler {
 public:
  SmallHost(kj::Timer& timer, Random& random);
  ~SmallHost() noexcept(false);

  VmId vm;
  HostState state;

  // A new offer, which replaces one that is out. The bundle for it.
  kj::Own<Bundle> offer();
  // Whether sessions and enrolments are taken at all.
  bool refuses = false;
  // Takes CONFIRM of an enrolment and drops the link instead of ACCEPT, or instead of COMMITTED, this many times.
  unsigned dropBeforeAccept = 0;
  unsigned dropBeforeCommitted = 0;
  // The answer to heartbeats, or none at all.
  uint32_t interval = 1000;
  bool answersHeartbeats = true;
  // Another version's host: what it says of itself, and what it has for the guest in place of schema::Host.
  uint8_t versionMax = PROTOCOL_VERSION;
  uint64_t features = 0;
  kj::Maybe<kj::Function<capnp::Capability::Client()>> bootstrap;
  // What the guest's consumers reach here; null: nothing, and each is denied.
  kj::Maybe<kj::Function<void(kj::Own<BulkChannel>)>> onChannel;

  // A guest's connection, from HELLO on.
  void serve(kj::Own<BytePipe> pipe);
  // A serial line, for as long as it lives; a new one takes the place of the old.
  void serveSerial(kj::Own<BytePipe> pipe);
  // Ends the session there is. CLOSE with the code, or null: as if this host were killed.
  void drop(kj::Maybe<CloseCode> code = nullptr);

  // What was heard.
  unsigned sessions = 0;
  unsigned enrolments = 0;  // committed
  unsigned tokenReuses = 0;
  kj::Vector<schema::Goodbye> goodbyes;
  kj::Vector<uint64_t> counters;  // of CONFIRMs
  uint64_t heartbeats = 0;        // of all sessions
  kj::Own<capnp::MallocMessageBuilder> lastHeartbeat;
  kj::Function<void(kj::StringPtr)> onEvent = [](kj::StringPtr) {};

  bool isConnected() const { return live != nullptr; }
  // Of the live session.
  schema::Guest::Client guest();
  Session& session();
  // Its next ends resolve this.
  kj::String lastEnd;

 private:
  struct Keyring;
  struct Live;
  struct Line;
  class Server;

  kj::Timer& timer;
  Random& random;
  BlockPool pool;
  ReadScratch scratch;
  SessionEnvironment environment;
  kj::Maybe<kj::Own<Line>> line;
  kj::Maybe<kj::Own<Live>> live;
  kj::TaskSet tasks;
  kj::Promise<void> listening = nullptr;  // to the line

  kj::Promise<void> acceptSerial();
  kj::Promise<void> meet(kj::Own<FrameLink> link);
  kj::Promise<void> met(kj::Own<IncomingSession> incoming, kj::Own<Keyring> keyring);
  kj::Promise<void> enrol(IncomingSession& incoming);
  void commit();
  void begin(kj::Own<Session> session);
  void event(kj::String text) { onEvent(text); }
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::test
