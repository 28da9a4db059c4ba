// skewed-guest SCHEMA SOURCE-ROOT BUNDLE-FILE SOCKET
//
// A guest of an older or a newer version (skewed-schema.h): enrols, beats once a second, answers, and goes on until its
// session ends. It speaks protocol versions 1 to 2 and says that it has every feature and suite.

#include <kj/async-io.h>
#include <kj/debug.h>
#include <signal.h>
#include <sodium.h>

#include <fstream>
#include <sstream>

#include "protocol/bundle.h"
#include "protocol/establish.h"
#include "protocol/limits.h"
#include "protocol/read-scratch.h"
#include "protocol/rpc-system.h"
#include "tests/integration/skewed-schema.h"
#include "transport/connector.h"
#include "transport/random.h"
#include "transport/stream-link.h"

namespace postern::test {
namespace {

kj::Own<Bundle> readBundle(const char* file) {
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  auto content = text.str();
  auto parsed = parseBundle(kj::arrayPtr(content.data(), content.size()));
  KJ_REQUIRE(parsed.is<kj::Own<Bundle>>(), "no bundle", file);
  return kj::mv(parsed.get<kj::Own<Bundle>>());
}

class SkewedGuest {
 public:
  SkewedGuest(kj::AsyncIoContext& io, const SkewedSchema& schema, const Bundle& bundle)
      : io(io),
        schema(schema),
        timer(io.unixEventPort.getTimer()),
        pool(timer),
        environment{timer, pool, random},
        credentials(
            GuestEnrolment{bundle.vm, GuestKeyPair::generate(random), bundle.host, {bundle.token.bytes.clone()}}) {
    confirmation.features = ~uint64_t(0);
  }

  void run(kj::StringPtr socket) {
    auto session = enrol(socket);
    RpcConnection rpc(*session, Role::GUEST, newSkewedEnd(schema, "Guest"), [](kj::StringPtr) {});
    auto asked = askLater(schema, "Host", rpc.peer()).eagerlyEvaluate(nullptr);
    auto host = rpc.peer().castAs<capnp::DynamicCapability>(schema.interface("Host"));
    for (uint64_t sequence = 1; !session->isOver(); ++sequence) {
      auto request = host.newRequest("heartbeat");
      fillLater(request);
      request.set("sequence", sequence);
      request.set("intervalMilliseconds", 1000);
      auto beat = request.send().ignoreResult().catch_([](kj::Exception&&) {});
      timer.afterDelay(1 * kj::SECONDS).exclusiveJoin(session->onEnd().ignoreResult()).wait(io.waitScope);
    }
    say("session over");
  }

 private:
  kj::AsyncIoContext& io;
  const SkewedSchema& schema;
  kj::Timer& timer;
  SystemRandom random;
  BlockPool pool;
  ReadScratch scratch;
  SessionEnvironment environment;
  GuestCredentials credentials;
  Confirmation confirmation;

  kj::Own<Session> enrol(kj::StringPtr socket) {
    auto connected = connectTo(io.unixEventPort, timer, UnixEndpoint{kj::str(socket)}).wait(io.waitScope);
    KJ_REQUIRE(connected.is<Connection>(), "no host");
    Hello hello;
    hello.role = Role::GUEST;
    hello.versionMax = 2;
    hello.suites = ~uint32_t(0);
    describeCredentials(credentials, hello);
    random.fill(kj::arrayPtr(hello.nonce.data(), hello.nonce.size()));
    auto link = openStreamLink(newPipe(io.unixEventPort, kj::mv(connected.get<Connection>())), hello, scratch)
                    .wait(io.waitScope);
    KJ_REQUIRE(link.is<kj::Own<FrameLink>>(), "no link");
    auto result = establishAsGuest(kj::mv(link.get<kj::Own<FrameLink>>()), credentials, confirmation,
                                   timer.now() + limits::HANDSHAKE_DEADLINE, environment)
                      .wait(io.waitScope);
    KJ_REQUIRE(result.is<GuestSession>(), "no session");
    auto session = kj::mv(result.get<GuestSession>().session);
    session->commit().wait(io.waitScope);
    say(kj::str("enrolled, features ", result.get<GuestSession>().acceptance.features));
    return session;
  }
};

}  // namespace
}  // namespace postern::test

int main(int argc, char** argv) {
  if (argc != 5 || sodium_init() < 0) return 2;
  signal(SIGPIPE, SIG_IGN);
  auto io = kj::setupAsyncIo();
  auto bundle = postern::test::readBundle(argv[3]);
  postern::test::SkewedSchema schema(argv[1], argv[2]);
  postern::test::SkewedGuest(io, schema, *bundle).run(argv[4]);
  return 0;
}
