#pragma once
// ChannelBridge: moves the bytes of one channel between a TCP socket and the Unix socket that leads to the session
// process, which takes no other: closing a socket that somebody else has made may take as long as he likes.
//
// Guarantees: bytes arrive exact and in order; each direction ends by itself; what ends the channel in another way is a
// RST to the TCP peer, also where a Unix socket would make it look like an end in order. A side that does not read
// holds up its own direction; nothing is kept but what it has not taken of one piece. One loop.

#include "host/client/service-channel.h"
#include "transport/relay/relay-end.h"

namespace postern::client {

class ChannelBridge {
 public:
  // `channel`: of the Unix socket's other end.
  ChannelBridge(kj::UnixEventPort& port, kj::Timer& timer, kj::AutoCloseFd tcp, kj::AutoCloseFd unixSocket,
                kj::Promise<ChannelEnd> channel);
  KJ_DISALLOW_COPY(ChannelBridge);

  // Once: until both directions are over. Dropping it and this object resets both.
  kj::Promise<void> run();

 private:
  kj::Timer& timer;
  const kj::AutoCloseFd probe;  // a copy of the Unix socket
  kj::Own<RelayEnd> tcp;
  kj::Own<RelayEnd> session;
  kj::ForkedPromise<ChannelEnd> channelEnd;
  bool thereFinished = false;

  kj::Promise<void> move(RelayEnd& from, RelayEnd& to);
  kj::Promise<void> readOn(RelayEnd& from, RelayEnd& to);
  kj::Promise<void> deliver(kj::Array<kj::byte> piece, size_t done, size_t size, RelayEnd& from, RelayEnd& to);
  kj::Promise<void> inputOver(RelayEnd& from, RelayEnd& to);
  kj::Promise<void> finish(RelayEnd& end);
  kj::Promise<void> reset();
  bool mayHaveBeenReset() const;
};

}  // namespace postern::client
