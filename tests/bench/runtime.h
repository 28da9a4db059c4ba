#pragma once
// Runtime: one process's event loop and what its sessions share, as a product sets them up; and the way from a
// connected socket to a session.

#include <kj/async-io.h>

#include "protocol/establish.h"
#include "protocol/read-scratch.h"
#include "tests/support/session-lab.h"
#include "transport/random.h"

namespace postern::bench {

// The keys of an enrolled pair. Made before the fork, so that both processes have both halves.
struct EnrolledPair {
  EnrolledPair();
  GuestCredentials guest;
  test::LabKeyring host;
  Confirmation confirmation;
};

struct Runtime {
  Runtime();

  kj::AsyncIoContext io;
  kj::Timer& timer;
  SystemRandom random;
  BlockPool pool;
  ReadScratch scratch;
  SessionEnvironment environment;

  // Each end's whole way, from before HELLO to behind ACCEPT. `pair` outlives the promise.
  kj::Promise<kj::Own<Session>> connectGuest(kj::AutoCloseFd socket, EnrolledPair& pair);
  kj::Promise<kj::Own<Session>> connectHost(kj::AutoCloseFd socket, EnrolledPair& pair);
};

}  // namespace postern::bench
