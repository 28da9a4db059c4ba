#pragma once
// ProbeLinks: links over one endpoint, one after the other, for a test program: connects or listens, and again whenever
// the last link has ended, until it succeeds. On a serial endpoint one SerialLink gives them all, and a lost pipe is
// opened anew.

#include <kj/async-unix.h>

#include "protocol/frame-link.h"
#include "protocol/random.h"
#include "protocol/read-scratch.h"
#include "transport/backoff.h"
#include "transport/connector.h"
#include "transport/endpoint.h"
#include "transport/listener.h"
#include "transport/serial-link.h"

namespace postern::test {

enum class Opening { CONNECT, LISTEN };

class ProbeLinks {
 public:
  ProbeLinks(kj::UnixEventPort& port, const Endpoint& endpoint, Opening opening, const Hello& offer, Random& random,
             ReadScratch& scratch);
  ~ProbeLinks() noexcept(false);

  struct Link {
    kj::Own<FrameLink> link;
    kj::String peer;
  };
  // The next link on which both HELLOs were exchanged. Failures are printed and tried again.
  kj::Promise<Link> next();

 private:
  kj::UnixEventPort& port;
  const Endpoint& endpoint;
  const Opening opening;
  const Hello offer;
  Random& random;
  ReadScratch& scratch;
  Backoff backoff;

  kj::Maybe<kj::Own<Listener>> listener;
  struct Serial;
  kj::Maybe<kj::Own<Serial>> serial;

  kj::Promise<Connected> open();
  kj::Promise<Link> nextOverStream();
  kj::Promise<Link> nextOverSerial();
  kj::Promise<void> pause();
};

}  // namespace postern::test
