#pragma once
// The host's way from a connection to an authenticated guest: receive() for one connection, and Reception, which does
// it for all that come to a listener, for a process that is doorkeeper and session in one.
//
// Guarantees, whatever a peer sends or leaves unsent:
//  - it has proved itself (its CONFIRM has decrypted) by the deadline, counted from accept, or its connection is
//  closed;
//  - until then it costs at most 4 KiB of heap, and when it is gone, none;
//  - it hears this end's HELLO, at most one handshake message, and the close. It is never told why.
// Destroying the owner, at any moment, closes all connections that have not been delivered. One loop.

#include <kj/async-unix.h>

#include "protocol/establish.h"
#include "protocol/read-scratch.h"
#include "transport/doorkeeper.h"

namespace postern {

// What the connections of one loop share. All outlive them, and the sessions that they become.
struct ReceptionEnvironment {
  kj::UnixEventPort& port;
  ReadScratch& scratch;
  SessionEnvironment session;
};

// A guest that has proved itself and waits for ACCEPT, or why there is none.
using Received = kj::OneOf<kj::Own<IncomingSession>, HelloError, EstablishFailure>;

// HELLO and handshake on a connection from which nothing has been read, both before the deadline. `keyring` outlives
// the promise. Dropping the promise closes the connection. Fails only if the kernel does.
kj::Promise<Received> receive(Connection connection, HostKeyring& keyring, kj::TimePoint deadline,
                              const ReceptionEnvironment& environment);

// Why a peer was closed; for logs and counters of this end.
using Rejection = kj::OneOf<Stranger, Refusal, HelloError, EstablishFailure, kj::Exception>;
kj::StringPtr describe(const Rejection& rejection);  // lives as long as the rejection

class Reception final : private kj::TaskSet::ErrorHandler {
 public:
  // Called from the loop. None of them may destroy the Reception, and one that throws stops it.
  class Handler {
   public:
    // The keys of a VM that PickVm named. Borrowed until that visitor arrived or was rejected.
    virtual HostKeyring& keyringOf(kj::StringPtr vm) = 0;
    virtual void arrived(kj::Own<IncomingSession> guest, const PeerAddress& peer, kj::StringPtr vm) = 0;
    // `vm` is empty for a stranger.
    virtual void rejected(const Rejection& why, const PeerAddress& peer, kj::StringPtr vm) = 0;
    // Our bug: nobody is accepted any more. Those under way go on.
    virtual void stopped(kj::Exception&& why) = 0;
  };

  // Starts at once. All references outlive this.
  Reception(Listener& listener, Admission& admission, PickVm pickVm, Handler& handler,
            const ReceptionEnvironment& environment);
  KJ_DISALLOW_COPY(Reception);

 private:
  struct Attempt;

  Handler& handler;
  const ReceptionEnvironment environment;
  Doorkeeper doorkeeper;
  kj::TaskSet attempts;
  kj::Promise<void> accepting;

  kj::Promise<void> acceptAll();
  kj::Promise<void> attend(Visitor visitor);
  void concluded(Attempt& attempt, Received outcome);
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern
