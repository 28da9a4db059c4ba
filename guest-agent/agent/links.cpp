#include "guest-agent/agent/links.h"

#include <kj/debug.h>
#include <string.h>

#include "protocol/limits.h"
#include "transport/serial-link.h"
#include "transport/stream-link.h"

namespace postern::guest {

namespace {

Hello helloFor(const GuestCredentials& credentials) {
  Hello hello;
  hello.role = Role::GUEST;
  describeCredentials(credentials, hello);
  return hello;
}

bool offersSame(const Hello& a, const Hello& b) {
  return a.patterns == b.patterns && a.keyHint == b.keyHint && a.tokenHint == b.tokenHint;
}

}  // namespace

// The pipe goes last: the link writes to it when it is destroyed.
struct Links::Serial {
  kj::Own<BytePipe> pipe;
  Hello offered;
  SerialLink link;

  Serial(kj::Own<BytePipe> pipeParam, const Hello& offer, Random& random, kj::Timer& timer, ReadScratch& scratch)
      : pipe(kj::mv(pipeParam)), offered(offer), link(*pipe, offer, random, timer, scratch) {}
};

Links::Links(BrokerClient& broker, kj::UnixEventPort& port, kj::Timer& timer, Random& random, ReadScratch& scratch)
    : broker(broker), port(port), timer(timer), random(random), scratch(scratch) {}

Links::~Links() noexcept(false) {}

void Links::forget() {
  serial = nullptr;
}

kj::Promise<Links::Result> Links::next(const GuestCredentials& credentials) {
  auto hello = helloFor(credentials);
  if (serial != nullptr) return overSerial(hello);
  return broker.connect().then([this, hello](Connected connected) -> kj::Promise<Result> {
    if (connected.is<TransportError>()) return Result(NoLink{kj::mv(connected.get<TransportError>().text)});
    return over(kj::mv(connected.get<Connection>()), hello);
  });
}

kj::Promise<Links::Result> Links::over(Connection connection, Hello hello) {
  if (connection.transport != TransportKind::SERIAL) return overStream(kj::mv(connection), hello);
  serial = kj::heap<Serial>(newPipe(port, kj::mv(connection)), hello, random, timer, scratch);
  return overSerial(hello);
}

kj::Promise<Links::Result> Links::overStream(Connection connection, Hello hello) {
  if (connection.transport == TransportKind::UNIX) limitSendBuffer(connection.fd, limits::UNIX_SEND_BUFFER_BYTES);
  hello.transport = connection.transport;
  random.fill(kj::arrayPtr(hello.nonce.data(), hello.nonce.size()));
  auto late = timer.afterDelay(limits::CONNECT_TIMEOUT).then([]() {
    return Result(NoLink{kj::str("the host took the connection and says nothing")});
  });
  auto pipe = newPipe(port, kj::mv(connection));
  return openStreamLink(kj::mv(pipe), hello, scratch)
      .then([](kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd> link) {
        if (link.is<kj::Own<FrameLink>>()) return Result(kj::mv(link.get<kj::Own<FrameLink>>()));
        if (link.is<HelloError>())
          return Result(NoLink{kj::str("no host of ours answers: ", describe(link.get<HelloError>()))});
        return Result(NoLink{kj::str("the host closed the connection at once; is this VM known there?")});
      })
      .exclusiveJoin(kj::mv(late));
}

kj::Promise<Links::Result> Links::overSerial(const Hello& hello) {
  auto& line = *KJ_ASSERT_NONNULL(serial);
  if (!offersSame(line.offered, hello)) {
    line.offered = hello;
    line.link.offer(hello);
  }
  return line.link.accept().then([this](kj::OneOf<kj::Own<FrameLink>, LinkEnd> link) {
    if (link.is<kj::Own<FrameLink>>()) return Result(kj::mv(link.get<kj::Own<FrameLink>>()));
    serial = nullptr;
    return Result(NoLink{kj::str("the serial device is gone")});
  });
}

}  // namespace postern::guest
