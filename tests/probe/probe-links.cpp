#include "tests/probe/probe-links.h"

#include <kj/debug.h>

#include <cstdio>

#include "protocol/limits.h"
#include "transport/stream-link.h"

namespace postern::test {

// The pipe goes last: the link writes to it when it is destroyed.
struct ProbeLinks::Serial {
  kj::Own<BytePipe> pipe;
  SerialLink link;

  Serial(kj::Own<BytePipe> pipeParam, const Hello& offer, Random& random, kj::Timer& timer, ReadScratch& scratch)
      : pipe(kj::mv(pipeParam)), link(*pipe, offer, random, timer, scratch) {}
};

ProbeLinks::ProbeLinks(kj::UnixEventPort& port, const Endpoint& endpoint, Opening opening, const Hello& offer,
                       Random& random, ReadScratch& scratch)
    : port(port),
      endpoint(endpoint),
      opening(opening),
      offer(offer),
      random(random),
      scratch(scratch),
      backoff(newConnectBackoff(random)) {
  if (opening == Opening::LISTEN) {
    auto listening = listenOn(port, port.getTimer(), endpoint);
    if (listening.is<TransportError>()) KJ_FAIL_REQUIRE("cannot listen", listening.get<TransportError>().text);
    listener = kj::mv(listening.get<kj::Own<Listener>>());
    printf("listening on %s\n", toString(endpoint).cStr());
  }
}

ProbeLinks::~ProbeLinks() noexcept(false) {}

kj::Promise<ProbeLinks::Link> ProbeLinks::next() {
  return endpoint.is<SerialEndpoint>() ? nextOverSerial() : nextOverStream();
}

kj::Promise<void> ProbeLinks::pause() {
  return port.getTimer().afterDelay(backoff.next());
}

kj::Promise<Connected> ProbeLinks::open() {
  KJ_IF_MAYBE (l, listener) {
    return (*l)->accept().then([](Connection connection) { return Connected(kj::mv(connection)); });
  }
  ConnectOptions options;
  options.privilegedSource = random;
  return connectTo(port, port.getTimer(), endpoint, options);
}

kj::Promise<ProbeLinks::Link> ProbeLinks::nextOverStream() {
  return open().then([this](Connected connected) -> kj::Promise<Link> {
    if (connected.is<TransportError>()) {
      printf("not connected: %s\n", connected.get<TransportError>().text.cStr());
      return pause().then([this]() { return nextOverStream(); });
    }
    backoff.reset();
    auto& connection = connected.get<Connection>();
    auto peer = toString(connection.peer);
    if (connection.transport == TransportKind::UNIX) limitSendBuffer(connection.fd, limits::UNIX_SEND_BUFFER_BYTES);
    Hello hello = offer;
    hello.transport = connection.transport;
    random.fill(kj::arrayPtr(hello.nonce.data(), hello.nonce.size()));
    auto late = port.getTimer().afterDelay(limits::HANDSHAKE_DEADLINE).then([]() {
      return kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd>(LinkEnd::CLOSED);
    });
    return openStreamLink(newPipe(port, kj::mv(connection)), hello, scratch)
        .exclusiveJoin(kj::mv(late))
        .then([this, peer = kj::mv(peer)](auto link) mutable -> kj::Promise<Link> {
          if (link.template is<kj::Own<FrameLink>>()) {
            return Link{kj::mv(link.template get<kj::Own<FrameLink>>()), kj::mv(peer)};
          }
          printf("no HELLO\n");
          return nextOverStream();
        });
  });
}

kj::Promise<ProbeLinks::Link> ProbeLinks::nextOverSerial() {
  KJ_IF_MAYBE (s, serial) {
    return (*s)->link.accept().then([this](kj::OneOf<kj::Own<FrameLink>, LinkEnd> link) -> kj::Promise<Link> {
      if (link.is<kj::Own<FrameLink>>()) return Link{kj::mv(link.get<kj::Own<FrameLink>>()), kj::str("serial")};
      serial = nullptr;
      return pause().then([this]() { return nextOverSerial(); });
    });
  }
  return open().then([this](Connected connected) -> kj::Promise<Link> {
    if (connected.is<TransportError>()) {
      printf("not connected: %s\n", connected.get<TransportError>().text.cStr());
      return pause().then([this]() { return nextOverSerial(); });
    }
    backoff.reset();
    serial =
        kj::heap<Serial>(newPipe(port, kj::mv(connected.get<Connection>())), offer, random, port.getTimer(), scratch);
    return nextOverSerial();
  });
}

}  // namespace postern::test
