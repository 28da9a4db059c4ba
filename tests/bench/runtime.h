#pragma once
// Runtime: one process's event loop and what its sessions share, as a product sets them up; and the way from a
// connected socket to a session.

#include <kj/async-io.h>

#include "protocol/establish.h"
#include "protocol/limits.h"
#include "protocol/read-scratch.h"
#include "tests/support/session-lab.h"
#include "transport/random.h"

namespace postern::bench {

// KJ's own setting, which is plain Cap'n Proto's best.
constexpr uint POLLING_OF_KJ = kj::maxValue;
// What plain KJ needs beside a stream that never leaves its loop idle; the p99 of a call is no better below it.
constexpr uint POLLING_BESIDE_STREAM = 8;

// The keys of an enrolled pair. Made before the fork, so that both processes have both halves.
struct EnrolledPair {
  EnrolledPair();
  GuestCredentials guest;
  test::LabKeyring host;
  Confirmation confirmation;
};

struct Runtime {
  // `polling`: how many events the loop runs in a row before it looks for I/O.
  explicit Runtime(uint polling = limits::BUSY_POLL_INTERVAL);

  kj::AsyncIoContext io;
  kj::Timer& timer;
  SystemRandom random;
  BlockPool pool;
  ReadScratch scratch;
  SessionEnvironment environment;

  // What the kernel is asked to hold of a session's bytes; null: its default.
  kj::Maybe<size_t> sendBuffer = limits::UNIX_SEND_BUFFER_BYTES;

  // Each end's whole way, from before HELLO to behind ACCEPT. `pair` outlives the promise.
  kj::Promise<kj::Own<Session>> connectGuest(kj::AutoCloseFd socket, EnrolledPair& pair);
  kj::Promise<kj::Own<Session>> connectHost(kj::AutoCloseFd socket, EnrolledPair& pair);

 private:
  kj::Own<BytePipe> pipeOver(kj::AutoCloseFd socket);
};

}  // namespace postern::bench
