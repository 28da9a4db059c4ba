// What crowds of peers do to a reception is in tests/crowd.
#include "transport/reception.h"

#include <fcntl.h>

#include <string>

#include "tests/support/vm-keys.h"
#include "tests/unit/transport/door-fixture.h"
#include "transport/stream-link.h"

namespace postern {
namespace {

using test::TestRandom;
using test::VmKeys;

struct Fixture : DoorFixture, Reception::Handler {
  TestRandom random;
  BlockPool pool{timer};
  ReadScratch scratch;
  ReceptionEnvironment environment{port, scratch, SessionEnvironment{timer, pool, random}};
  VmKeys keys{random};
  kj::Vector<kj::Own<IncomingSession>> guests;
  kj::Vector<kj::String> rejections;  // "VM: why"
  kj::Maybe<kj::Exception> stop;
  bool throwOnArrival = false;
  Hello hello;
  Reception reception{listener, admission, vmOfCid, *this, environment};

  HostKeyring& keyringOf(kj::StringPtr vm) override {
    KJ_REQUIRE(vm != "vm99", "a VM without a keyring");
    return keys.host;
  }
  void arrived(kj::Own<IncomingSession> guest, const PeerAddress& peer, kj::StringPtr vm) override {
    CHECK((vm == "vm42"));
    CHECK(peer.get<VsockPeer>().cid == 42);
    CHECK(admission.halfOpen() == 0);  // already
    KJ_REQUIRE(!throwOnArrival, "a handler that throws");
    guests.add(kj::mv(guest));
  }
  void rejected(const Rejection& why, const PeerAddress&, kj::StringPtr vm) override {
    rejections.add(kj::str(vm, ": ", describe(why)));
  }
  void stopped(kj::Exception&& why) override { stop = kj::mv(why); }

  void settle() {
    for (int i = 0; i < 10; ++i) scope.poll();
  }
  bool isRejection(size_t index, kj::StringPtr text) {
    if (index < rejections.size() && rejections[index] == text) return true;
    for (auto& rejection : rejections) MESSAGE(std::string(rejection.cStr()));
    return false;
  }

  // A guest's way to a session, as far as the host lets it come.
  kj::Promise<kj::Maybe<kj::Own<Session>>> guest(const GuestCredentials& credentials) {
    describeCredentials(credentials, hello);
    random.fill(kj::arrayPtr(hello.nonce.data(), hello.nonce.size()));
    return openStreamLink(newSocketPipe(port, listener.connectFrom(VsockPeer{42, 5000})), hello, scratch)
        .then([this, &credentials](auto link) {
          return establishAsGuest(kj::mv(link.template get<kj::Own<FrameLink>>()), credentials, {},
                                  timer.now() + limits::HANDSHAKE_DEADLINE, environment.session);
        })
        .then([](auto result) -> kj::Maybe<kj::Own<Session>> {
          if (result.template is<EstablishFailure>()) return nullptr;
          return kj::mv(result.template get<GuestSession>().session);
        });
  }
};

TEST_CASE("a guest with the keys arrives, enrolled or with a token, and has left its place to others by then") {
  Fixture f;
  auto enrolled = f.guest(f.keys.enrolled);
  f.settle();
  REQUIRE(f.guests.size() == 1);
  CHECK(!f.guests[0]->isEnrolment());
  auto host = f.guests[0]->accept({});
  CHECK(f.now(kj::mv(enrolled)) != nullptr);

  auto newcomer = f.guest(f.keys.newcomer);
  f.settle();
  REQUIRE(f.guests.size() == 2);
  CHECK(f.guests[1]->isEnrolment());
  CHECK(f.rejections.size() == 0);
}

TEST_CASE("a guest that proves itself again and again is never slowed down") {
  Fixture f;
  for (unsigned i = 1; i <= 3 * limits::HANDSHAKE_BURST; ++i) {
    auto guest = f.guest(f.keys.enrolled);
    f.settle();
    REQUIRE(f.guests.size() == i);
  }
  CHECK(f.rejections.size() == 0);
}

TEST_CASE("a guest with another VM's keys is told nothing but the close") {
  Fixture f;
  VmKeys others(f.random);
  auto refused = f.guest(others.enrolled);
  f.settle();
  CHECK(f.now(kj::mv(refused)) == nullptr);
  CHECK(f.guests.size() == 0);
  CHECK(f.isRejection(0, "vm42: no key or token of this VM fits"));
  CHECK(f.admission.halfOpen() == 0);
}

TEST_CASE("a silent peer is closed at its deadline and not before, having heard the HELLO") {
  Fixture f;
  auto peer = f.listener.connectFrom(VsockPeer{42, 5000});
  f.settle();
  f.advance(limits::HANDSHAKE_DEADLINE - 1 * kj::NANOSECONDS);
  f.settle();
  CHECK(receiveNow(peer).size() == HELLO_FRAME_BYTES);
  CHECK((receiveNow(peer) == "-"));
  f.advance(1 * kj::NANOSECONDS);
  f.settle();
  CHECK((receiveNow(peer) == ""));
  CHECK(f.isRejection(0, "vm42: the handshake took too long"));
}

TEST_CASE("strangers and peers over the limit are reported with their reason") {
  Fixture f;
  auto stranger = f.listener.connectFrom(VsockPeer{1, 5000});
  kj::Vector<kj::AutoCloseFd> peers;
  for (int i = 0; i < 3; ++i) peers.add(f.listener.connectFrom(VsockPeer{42, 5000}));
  f.settle();
  CHECK(f.isRejection(0, ": no VM has this address"));
  CHECK(f.isRejection(1, "vm42: its earlier attempts are still unfinished"));
  peers.clear();
  f.settle();
  CHECK(f.isRejection(2, "vm42: the peer closed the link"));
}

TEST_CASE("a connection on which the kernel fails is rejected, and the next one served") {
  Fixture f;
  kj::AutoCloseFd noSocket(open("/dev/null", O_RDWR | O_CLOEXEC));
  f.listener.add(Connection{TransportKind::UNIX, DescriptorKind::SOCKET, VsockPeer{42, 1}, kj::mv(noSocket)});
  f.settle();
  REQUIRE(f.rejections.size() == 1);
  CHECK(strstr(f.rejections[0].cStr(), "setsockopt") != nullptr);
  CHECK(f.admission.halfOpen() == 0);
  auto guest = f.guest(f.keys.enrolled);
  f.settle();
  CHECK(f.guests.size() == 1);
}

TEST_CASE("a handler that throws, or a listener that fails, stops the accepting and nothing else") {
  Fixture f;
  auto early = f.listener.connectFrom(VsockPeer{42, 5000});
  f.settle();
  kj::AutoCloseFd cause;
  SUBCASE("keyringOf") {
    cause = f.listener.connectFrom(VsockPeer{99, 5000});
  }
  SUBCASE("arrived") {
    early = nullptr;
    f.settle();
    f.throwOnArrival = true;
    auto guest = f.guest(f.keys.enrolled);
    f.settle();
  }
  SUBCASE("listener") {
    f.listener.isBroken = true;
    cause = f.listener.connectFrom(VsockPeer{1, 5000});
  }
  f.settle();
  CHECK(f.stop != nullptr);
  auto late = f.listener.connectFrom(VsockPeer{42, 5000});
  f.advance(limits::HANDSHAKE_DEADLINE);
  f.settle();
  CHECK((receiveNow(late) == "-"));
  CHECK(f.admission.halfOpen() == 0);
  // Whoever was under way had its three seconds.
  if (early.get() >= 0) CHECK(f.isRejection(f.rejections.size() - 1, "vm42: the handshake took too long"));
}

TEST_CASE("dropping receive() closes the connection") {
  Fixture f;
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
  kj::AutoCloseFd peer(fds[1]);
  {
    auto dropped =
        receive(Connection{TransportKind::UNIX, DescriptorKind::SOCKET, UnknownPeer(), kj::AutoCloseFd(fds[0])},
                f.keys.host, f.timer.now() + limits::HANDSHAKE_DEADLINE, f.environment);
    CHECK(!f.resolves(dropped));
    CHECK(receiveNow(peer).size() == HELLO_FRAME_BYTES);
  }
  CHECK((receiveNow(peer) == ""));
}

}  // namespace
}  // namespace postern
