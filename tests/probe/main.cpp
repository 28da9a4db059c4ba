// link-probe guest|host ENDPOINT [--listen] [--rounds N] [--bytes N] [--timeout S] [--key-seed N]
//
// The two ends of real sessions with test keys that both derive from the seed, for tests between processes and in
// guests. The host does rounds (probe-session.h) and prints "round N ok session M" for each; with --rounds it ends
// after so many. Both print "session M from PEER" and "session M over: WHY", and get the next session when one ends,
// until the time-out (exit 1). "WRONG" in the output, and exit 3, mean that a byte or an answer was not the right one.

#include <kj/async-unix.h>
#include <kj/debug.h>
#include <signal.h>
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include <cstdio>

#include "protocol/establish.h"
#include "protocol/limits.h"
#include "tests/probe/probe-links.h"
#include "tests/probe/probe-session.h"
#include "tests/support/session-lab.h"
#include "transport/random.h"

namespace postern::test {
namespace {

struct Options {
  Role role = Role::GUEST;
  Opening opening = Opening::CONNECT;
  uint64_t rounds = 0;
  size_t bytes = 200000;
  unsigned timeoutSeconds = 600;
  uint64_t keySeed = 1;
};

// Both ends make the same keys from the seed, and use their own halves.
struct ProbeKeys {
  GuestCredentials guest;
  LabKeyring host;

  explicit ProbeKeys(uint64_t seed) {
    TestRandom random(seed);
    VmId vm;
    random.fill(kj::arrayPtr(vm.bytes.data(), vm.bytes.size()));
    auto guestKeys = GuestKeyPair::generate(random);
    auto hostKeys = HostKeyPair::generate(random);
    auto secret = LinkSecret::generate(random);
    auto hostPublic = hostKeys.publicKey();
    host.identity = HostIdentity{vm, kj::mv(hostKeys), guestKeys.publicKey(), LinkSecret{secret.bytes.clone()}};
    guest = GuestIdentity{vm, kj::mv(guestKeys), hostPublic, kj::mv(secret)};
  }
};

class Prober {
 public:
  Prober(const Options& options, const Endpoint& endpoint, kj::UnixEventPort& port)
      : options(options),
        timer(port.getTimer()),
        pool(timer),
        environment{timer, pool, random},
        keys(options.keySeed),
        links(port, endpoint, options.opening, offer(), random, scratch) {}

  kj::Promise<void> run() {
    return links.next().then([this](ProbeLinks::Link link) {
      ++sessions;
      printf("session %lu from %s\n", sessions, link.peer.cStr());
      auto deadline = timer.now() + limits::HANDSHAKE_DEADLINE;
      auto done =
          options.role == Role::GUEST ? beGuest(kj::mv(link.link), deadline) : beHost(kj::mv(link.link), deadline);
      return done.then([this]() { return isDone() ? kj::Promise<void>(kj::READY_NOW) : run(); });
    });
  }

 private:
  const Options& options;
  kj::Timer& timer;
  SystemRandom random;
  BlockPool pool;
  ReadScratch scratch;
  SessionEnvironment environment;
  ProbeKeys keys;
  ProbeLinks links;
  Confirmation confirmation;
  uint64_t sessions = 0;
  uint64_t roundsDone = 0;

  bool isDone() const { return options.rounds > 0 && roundsDone >= options.rounds; }

  Hello offer() {
    Hello hello;
    hello.role = options.role;
    if (options.role == Role::GUEST) {
      describeCredentials(keys.guest, hello);
    } else {
      hello.patterns = PATTERN_KKPSK0 | PATTERN_XXPSK0;
    }
    return hello;
  }

  kj::Promise<void> refused(const EstablishFailure& why) {
    printf("session %lu over: %s\n", sessions, describe(why).cStr());
    return kj::READY_NOW;
  }

  kj::Promise<void> report(kj::Promise<SessionEnd> end) {
    return end.then([this](SessionEnd why) { printf("session %lu over: %s\n", sessions, describe(why).cStr()); });
  }

  kj::Promise<void> beGuest(kj::Own<FrameLink> link, kj::TimePoint deadline) {
    confirmation.sessionCounter = sessions;
    return establishAsGuest(kj::mv(link), keys.guest, confirmation, deadline, environment)
        .then([this](kj::OneOf<GuestSession, EstablishFailure> result) -> kj::Promise<void> {
          if (result.is<EstablishFailure>()) return refused(result.get<EstablishFailure>());
          auto session = kj::mv(result.get<GuestSession>().session);
          auto rpc =
              kj::heap<RpcConnection>(*session, Role::GUEST, kj::heap<ProbeServer>(*session), [](kj::StringPtr) {});
          return report(session->onEnd()).attach(kj::mv(rpc), kj::mv(session));
        });
  }

  kj::Promise<void> beHost(kj::Own<FrameLink> link, kj::TimePoint deadline) {
    return establishAsHost(kj::mv(link), keys.host, deadline, environment)
        .then([this](kj::OneOf<kj::Own<IncomingSession>, EstablishFailure> result) -> kj::Promise<void> {
          if (result.is<EstablishFailure>()) return refused(result.get<EstablishFailure>());
          auto session = result.get<kj::Own<IncomingSession>>()->accept({});
          auto rpc =
              kj::heap<RpcConnection>(*session, Role::HOST, kj::heap<ProbeServer>(*session), [](kj::StringPtr) {});
          auto& reference = *session;
          auto peer = rpc->peer().castAs<Probe>();
          return rounds(reference, kj::mv(peer))
              .catch_([this, &reference](kj::Exception&& failure) { return roundFailed(reference, kj::mv(failure)); })
              .attach(kj::mv(rpc), kj::mv(session));
        });
  }

  // A round fails when its session ends. If it does not end, the bytes were wrong. A PING finds out whether the peer is
  // there.
  kj::Promise<void> roundFailed(Session& session, kj::Exception failure) {
    if (strstr(failure.getDescription().cStr(), "WRONG") != nullptr) {
      printf("WRONG: %s\n", failure.getDescription().cStr());
      fflush(stdout);
      _exit(3);
    }
    return report(session.onEnd());
  }

  kj::Promise<void> rounds(Session& session, Probe::Client peer) {
    if (isDone()) return session.close(CloseCode::GOODBYE);
    // A peer that died without a trace is found by the PING that goes along.
    auto alive = session.ping().ignoreResult();
    auto both = kj::heapArrayBuilder<kj::Promise<void>>(2);
    both.add(probeRound(session, peer, random, options.bytes));
    both.add(kj::mv(alive));
    auto over = session.onEnd().then([](SessionEnd) { KJ_FAIL_REQUIRE("session over"); });
    return kj::joinPromises(both.finish()).exclusiveJoin(kj::mv(over)).then([this, &session, peer]() mutable {
      ++roundsDone;
      printf("round %lu ok session %lu\n", roundsDone, sessions);
      return rounds(session, peer);
    });
  }
};

int fail(const char* text) {
  fprintf(stderr, "link-probe: %s\n", text);
  return 2;
}

int probe(int argc, char** argv) {
  if (argc < 3)
    return fail(
        "usage: link-probe guest|host ENDPOINT [--listen] [--rounds N] [--bytes N] [--timeout S] [--key-seed N]");
  Options options;
  if (strcmp(argv[1], "host") == 0) {
    options.role = Role::HOST;
  } else if (strcmp(argv[1], "guest") != 0) {
    return fail("the role is guest or host");
  }
  for (int i = 3; i < argc; ++i) {
    kj::StringPtr name = argv[i];
    if (name == "--listen") {
      options.opening = Opening::LISTEN;
      continue;
    }
    if (i + 1 == argc) return fail("an option lacks its number");
    auto value = strtoull(argv[++i], nullptr, 10);
    if (name == "--rounds") {
      options.rounds = value;
    } else if (name == "--bytes") {
      options.bytes = value;
    } else if (name == "--timeout") {
      options.timeoutSeconds = static_cast<unsigned>(value);
    } else if (name == "--key-seed") {
      options.keySeed = value;
    } else {
      return fail("unknown option");
    }
  }
  auto endpoint = parseEndpoint(kj::StringPtr(argv[2]));
  if (endpoint.is<EndpointError>()) return fail(endpoint.get<EndpointError>().text.cStr());

  setvbuf(stdout, nullptr, _IOLBF, 0);
  kj::UnixEventPort port;
  kj::EventLoop loop(port);
  kj::WaitScope waitScope(loop);
  waitScope.setBusyPollInterval(limits::BUSY_POLL_INTERVAL);
  Prober prober(options, endpoint.get<Endpoint>(), port);
  bool done =
      prober.run()
          .then([]() { return true; })
          .exclusiveJoin(port.getTimer().afterDelay(options.timeoutSeconds * kj::SECONDS).then([]() { return false; }))
          .wait(waitScope);
  printf(done ? "done\n" : "timed out\n");
  return done ? 0 : 1;
}

}  // namespace
}  // namespace postern::test

int main(int argc, char** argv) {
  return postern::test::probe(argc, argv);
}
