#pragma once
// Links: connections to the host on which HELLOs were exchanged, one after the other. The broker opens the transport;
// on a stream each link has a connection of its own, and on a serial port one SerialLink gives them all for as long as
// the device lives. Makes one attempt a call; when to try again is the caller's matter. Owned by the agent.

#include <kj/async-unix.h>
#include <kj/one-of.h>
#include <kj/timer.h>

#include "guest-agent/broker/broker-client.h"
#include "protocol/credentials.h"
#include "protocol/frame-link.h"
#include "protocol/random.h"
#include "protocol/read-scratch.h"

namespace postern::guest {

// Nobody answered, or not as a host of ours does, before the handshake. One line for a person.
struct NoLink {
  kj::String text;
};

class Links {
 public:
  // All outlive this.
  Links(BrokerClient& broker, kj::UnixEventPort& port, kj::Timer& timer, Random& random, ReadScratch& scratch);
  ~Links() noexcept(false);
  KJ_DISALLOW_COPY(Links);

  // A link for these credentials. On a stream within limits::CONNECT_TIMEOUT; a serial line is waited at for as long as
  // its other end is away. The link before it, on a serial line, is over. One call at a time; dropping the promise is
  // giving up.
  kj::Promise<kj::OneOf<kj::Own<FrameLink>, NoLink>> next(const GuestCredentials& credentials);

  // Whether there can be a second link beside a live one.
  bool canOverlap() const { return serial == nullptr; }
  // The next link comes over a transport that is opened anew. Links must be gone.
  void forget();

 private:
  using Result = kj::OneOf<kj::Own<FrameLink>, NoLink>;
  struct Serial;

  BrokerClient& broker;
  kj::UnixEventPort& port;
  kj::Timer& timer;
  Random& random;
  ReadScratch& scratch;
  kj::Maybe<kj::Own<Serial>> serial;

  kj::Promise<Result> over(Connection connection, Hello hello);
  kj::Promise<Result> overStream(Connection connection, Hello hello);
  kj::Promise<Result> overSerial(const Hello& hello);
};

}  // namespace postern::guest
