#include <kj/debug.h>
#include <sys/socket.h>

#include "protocol/limits.h"
#include "tests/unit/transport/joined-sessions.h"
#include "transport/fd-pipe.h"
#include "transport/stream-link.h"

namespace postern::test {

SocketPair socketPair(int type) {
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

JoinedSessions::JoinedSessions()
    : io(kj::setupAsyncIo()),
      waitScope(io.waitScope),
      pool(io.provider->getTimer()),
      environment{io.provider->getTimer(), pool, random} {
  // As in the programs: what is busy does not keep the loop from its timers and sockets.
  waitScope.setBusyPollInterval(limits::BUSY_POLL_INTERVAL);
  Hello guestHello, hostHello;
  guestHello.role = Role::GUEST;
  hostHello.role = Role::HOST;
  random.fill(kj::arrayPtr(guestHello.nonce.data(), guestHello.nonce.size()));
  random.fill(kj::arrayPtr(hostHello.nonce.data(), hostHello.nonce.size()));
  auto wire = socketPair(SOCK_STREAM);
  auto guestPromise = openStreamLink(newSocketPipe(io.unixEventPort, kj::mv(wire.one)), guestHello, scratch);
  auto hostPromise =
      openStreamLink(newSocketPipe(io.unixEventPort, kj::mv(wire.other)), hostHello, scratch).eagerlyEvaluate(nullptr);
  auto guestOutcome = guestPromise.wait(waitScope);
  auto hostOutcome = hostPromise.wait(waitScope);
  auto guestLink = kj::mv(guestOutcome.get<kj::Own<FrameLink>>());
  auto hostLink = kj::mv(hostOutcome.get<kj::Own<FrameLink>>());
  Secret<32> toHost, toGuest;
  random.fill(toHost.asPtr());
  random.fill(toGuest.asPtr());
  auto tag = linkTag(guestLink->hellos());
  guest = kj::heap<Session>(Role::GUEST, kj::mv(guestLink), RecordSealer({toHost.clone()}, tag),
                            RecordOpener({toGuest.clone()}), false, environment);
  host = kj::heap<Session>(Role::HOST, kj::mv(hostLink), RecordSealer({toGuest.clone()}, tag),
                           RecordOpener({toHost.clone()}), false, environment);
}

JoinedSessions::Channels JoinedSessions::openChannel() {
  auto opened = host->bulk().open();
  auto& ours = KJ_REQUIRE_NONNULL(opened);
  auto accepted = guest->bulk().accept(ours.offer);
  return {kj::mv(ours.channel), kj::mv(accepted.get<kj::Own<BulkChannel>>())};
}

}  // namespace postern::test
