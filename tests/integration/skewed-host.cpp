// skewed-host SCHEMA SOURCE-ROOT SOCKET
//
// A host of an older or a newer version (skewed-schema.h): prints "bundle TEXT", then what its guest does, as events of
// SmallHost and calls; asks each session for a ping, and for what this version does not know.

#include <kj/async-io.h>
#include <kj/debug.h>
#include <signal.h>
#include <sodium.h>

#include "tests/integration/skewed-schema.h"
#include "tests/support/small-host.h"
#include "transport/endpoint.h"
#include "transport/listener.h"
#include "transport/random.h"

namespace postern::test {
namespace {

class SkewedHost final : private kj::TaskSet::ErrorHandler {
 public:
  SkewedHost(kj::UnixEventPort& port, Listener& listener, const SkewedSchema& schema)
      : port(port), listener(listener), schema(schema), host(port.getTimer(), random), tasks(*this) {
    host.versionMax = 2;
    host.features = ~uint64_t(0);
    host.bootstrap = [&schema]() { return newSkewedEnd(schema, "Host"); };
    host.onEvent = [this](kj::StringPtr text) { heard(text); };
    say(kj::str("bundle ", encodeBundle(*host.offer()).get()));
  }

  kj::Promise<void> run() {
    return listener.accept().then([this](Connection connection) {
      host.serve(newPipe(port, kj::mv(connection)));
      return run();
    });
  }

 private:
  kj::UnixEventPort& port;
  Listener& listener;
  const SkewedSchema& schema;
  SystemRandom random;
  SmallHost host;
  kj::TaskSet tasks;

  void heard(kj::StringPtr text) {
    say(text);
    if (text.startsWith("session over") || !text.startsWith("session ")) return;
    tasks.add(kj::evalLater([this]() { return ask(); }));
  }

  kj::Promise<void> ask() {
    auto guest = host.guest().castAs<capnp::DynamicCapability>(schema.interface("Guest"));
    auto request = guest.newRequest("callsFor");
    fillLater(request);
    request.init("caller").as<capnp::DynamicStruct>().init("user").as<capnp::DynamicStruct>().set("name", "alice");
    auto calls = request.send().get("calls").releaseAs<capnp::DynamicCapability>();
    auto ping = calls.newRequest("ping");
    fillLater(ping);
    return ping.send()
        .then([](capnp::Response<capnp::DynamicStruct>&& answer) {
          say(answer.has("refusal") ? "ping denied"_kj : "ping ok"_kj);
        })
        .then([this, guest]() mutable { return askLater(schema, "Guest", kj::mv(guest)); })
        .then([this, calls]() mutable { return askLater(schema, "GuestCalls", kj::mv(calls)); })
        .then([]() { say("asked"); });
  }

  void taskFailed(kj::Exception&& exception) override { say(kj::str("failed: ", exception.getDescription())); }
};

}  // namespace
}  // namespace postern::test

int main(int argc, char** argv) {
  if (argc != 4 || sodium_init() < 0) return 2;
  signal(SIGPIPE, SIG_IGN);
  using namespace postern;
  auto io = kj::setupAsyncIo();
  test::SkewedSchema schema(argv[1], argv[2]);
  auto listening = listenOn(io.unixEventPort, io.unixEventPort.getTimer(), UnixEndpoint{kj::str(argv[3])});
  KJ_REQUIRE(listening.is<kj::Own<Listener>>(), listening.get<TransportError>().text);
  test::SkewedHost(io.unixEventPort, *listening.get<kj::Own<Listener>>(), schema).run().wait(io.waitScope);
}
