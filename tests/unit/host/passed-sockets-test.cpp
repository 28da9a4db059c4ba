// Sockets that a caller passes: none is closed on the loop.

#include "host/local-rpc/passed-sockets.h"

#include <vector>

#include "tests/support/comes-to.h"
#include "tests/support/lingering-tcp.h"
#include "tests/unit/host/channel-fixture.h"
#include "tests/unit/host/tcp-pair.h"

namespace postern::host {
namespace {

using postern::test::LingeringTcp;
using postern::test::sendAlong;
using postern::test::TcpPair;
using test::ChannelLab;
using test::TestSocket;
using Kind = schema::Failure::Kind;

bool isQuick(kj::TimePoint began) {
  return kj::systemPreciseMonotonicClock().now() - began < 20 * kj::SECONDS;
}

// T92
TEST_CASE("a socket whose close takes its time holds up no session, whichever call it comes with") {
  LingeringTcp first, second, third, last, unread;
  auto began = kj::systemPreciseMonotonicClock().now();
  {
    ChannelLab lab;
    auto caller = lab.introduce({"http"});
    // Not granted; with a call that does not take it; and as the stream of a channel that ends in order.
    CHECK((lab.take(lab.connectWith(caller, kj::mv(first.socket), "ssh")).getFailure().getKind() == Kind::DENIED));
    auto request = caller.calls.fileRequest();
    request.setOpener(newDescriptor(kj::mv(second.socket)));
    CHECK((lab.take(request.send()).getFailure().getKind() == Kind::DENIED));
    CHECK(lab.take(lab.connectWith(caller, kj::mv(third.socket))).getChannel() != 0);
    auto& channel = *lab.guest.channels[0];
    channel.finish();
    shutdown(third.peer, SHUT_WR);
    CHECK((lab.endOf(channel) == BulkEnd::FINISHED));
    lab.turn();
    // In a Unix socket, where nobody reads it.
    auto local = newSocketPair(SOCK_STREAM);
    CHECK(sendAlong(local.second, kj::StringPtr("x").asArray(), kj::mv(unread.socket)) == 1);
    CHECK((lab.take(lab.connectWith(caller, kj::mv(local.first), "ssh")).getFailure().getKind() == Kind::DENIED));
    // What nobody has taken when the caller goes.
    auto unknown = caller.calls.fileRequest();
    unknown.setOpener(newDescriptor(kj::mv(last.socket)));
    CHECK((lab.take(unknown.send()).getFailure().getKind() == Kind::DENIED));
    caller.rpc = nullptr;
    lab.turn();
    CHECK(lab.beat(lab.linked.guest, lab.agent) != 0);
  }
  CHECK(isQuick(began));
}

TEST_CASE("a socket is taken once; what comes under the number of its stand-in afterwards is not taken for it") {
  auto io = kj::setupAsyncIo();
  auto passed = kj::refcounted<PassedSockets>();
  TcpPair pair;
  auto standIn = passed->standInFor(kj::mv(pair.theirs));
  REQUIRE(standIn != nullptr);
  CHECK_FALSE(isConnectedStream(standIn));
  auto descriptor = newDescriptor(kj::mv(standIn));
  auto taken = passed->take(descriptor).wait(io.waitScope);
  CHECK(isConnectedStream(taken));
  auto again = passed->take(descriptor).wait(io.waitScope);
  CHECK_FALSE(isConnectedStream(again));
  // A stand-in that nobody took, whose number the next one gets.
  TcpPair other;
  auto local = newSocketPair(SOCK_STREAM);
  int number = passed->standInFor(kj::mv(other.theirs)).get();
  auto reused = passed->standInFor(kj::mv(local.first));
  REQUIRE(reused.get() == number);
  auto mine = passed->take(newDescriptor(kj::mv(reused))).wait(io.waitScope);
  int domain = 0;
  socklen_t size = sizeof(domain);
  REQUIRE(getsockopt(mine, SOL_SOCKET, SO_DOMAIN, &domain, &size) == 0);
  CHECK(domain == AF_UNIX);
}

// T92
TEST_CASE("sockets that nobody takes do not pile up: the oldest are closed, the newest still taken") {
  auto io = kj::setupAsyncIo();
  auto passed = kj::refcounted<PassedSockets>();
  kj::Vector<kj::AutoCloseFd> peers, standIns;
  for (int i = 0; i < 200; ++i) {
    auto pair = newSocketPair(SOCK_STREAM);
    standIns.add(passed->standInFor(kj::mv(pair.first)));
    peers.add(kj::mv(pair.second));
  }
  auto closed = [&]() {
    unsigned count = 0;
    for (auto& peer : peers) {
      char byte;
      count += recv(peer, &byte, 1, MSG_DONTWAIT | MSG_PEEK) == 0;
    }
    return count;
  };
  CHECK(postern::test::comesTo(closed, 136u));
  CHECK(isConnectedStream(passed->take(newDescriptor(kj::mv(standIns.back()))).wait(io.waitScope)));
}

TEST_CASE("what is connected at both ends is told from what is not") {
  TcpPair pair;
  CHECK(isConnectedStream(pair.ours));
  shutdown(pair.ours, SHUT_WR);
  usleep(10'000);
  CHECK(isConnectedStream(pair.theirs));  // which has still to answer
  auto local = newSocketPair(SOCK_STREAM);
  CHECK(isConnectedStream(local.first));
  local.second = nullptr;
  CHECK(isConnectedStream(local.first));  // with what was sent still to be read
  auto packets = newSocketPair(SOCK_SEQPACKET);
  CHECK_FALSE(isConnectedStream(packets.first));
  CHECK_FALSE(isConnectedStream(kj::AutoCloseFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0))));
  CHECK_FALSE(isConnectedStream(kj::AutoCloseFd(socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC, 0))));
  CHECK_FALSE(isConnectedStream(STDERR_FILENO));
  CHECK_FALSE(isConnectedStream(-1));
}

TEST_CASE("posternd passes a caller's socket and the mirrors of his services in one message, each to its place") {
  ChannelLab lab;
  auto request = lab.posternd->control.introduceRequest();
  auto caller = newSocketPair(SOCK_STREAM);
  request.setSocket(newDescriptor(kj::mv(caller.second)));
  auto grant = request.initGrant();
  constexpr unsigned MANY = MAX_TRUSTED_DESCRIPTORS - 1;
  auto calls = grant.initCalls(MANY);
  auto services = grant.initServices(MANY);
  std::vector<TestSocket> appliances(MANY);
  for (unsigned i = 0; i < MANY; ++i) {
    auto call = kj::str("service.s", i);
    calls.set(i, call);
    services[i].setCall(call);
    auto pair = newSocketPair(SOCK_STREAM);
    appliances[i].fd = kj::mv(pair.second);
    services[i].initMirror().setSocket(newDescriptor(kj::mv(pair.first)));
  }
  lab.take(request.send().ignoreResult());
  LocalRpc rpc(*lab.io.lowLevelProvider, kj::mv(caller.first));
  test::Posternd::Caller introduced{{}, rpc.peer().castAs<schema::VmCalls>()};
  for (unsigned i : {0u, MANY - 1}) {
    TestSocket mine;
    lab.open(introduced, mine, kj::str("s", i));
    CHECK(appliances[i].read().find(kj::str("\"service\":\"s", i, '"').cStr()) != std::string::npos);
  }
  CHECK(appliances[1].read().empty());
}

}  // namespace
}  // namespace postern::host
