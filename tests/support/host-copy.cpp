#include "tests/support/host-copy.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <kj/thread.h>
#include <sys/socket.h>

#include "protocol/transfer/file-order.h"
#include "transport/transfer/destination-opener.h"
#include "transport/transfer/mover.h"
#include "transport/transfer/source-opener.h"

namespace postern::test {

namespace {

using transfer::FileCall;
using transfer::FileOrder;

kj::AutoCloseFd openFolder(kj::StringPtr path) {
  int fd;
  KJ_SYSCALL(fd = open(path.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC), path);
  return kj::AutoCloseFd(fd);
}

// Destroyed from below: the thread ends when the mover has closed its socket.
struct Copy {
  kj::AutoCloseFd openers;
  transfer::SourceListener sourceListener;
  transfer::DestinationListener destinationListener;
  kj::Maybe<transfer::OpenerEnd> end;
  kj::Maybe<kj::Own<kj::Thread>> thread;
  transfer::MoverGuard guard;
  kj::Maybe<kj::Own<transfer::Mover>> mover;

  kj::String outcome() {
    mover = nullptr;
    thread = nullptr;
    KJ_SWITCH_ONEOF(KJ_ASSERT_NONNULL(end)) {
      KJ_CASE_ONEOF(summary, transfer::Summary) {
        return kj::str("copied ", summary.files, " files, ", summary.failures, " failures");
      }
      KJ_CASE_ONEOF(problem, transfer::Problem) return kj::str("copy failed: ", problem.detail);
    }
    KJ_UNREACHABLE;
  }
};

kj::Promise<kj::String> run(kj::UnixEventPort& port, Session& session, schema::Guest::Client guest, FileOrder order,
                            kj::Function<transfer::OpenerEnd(Copy&)> opener) {
  auto caller = guest.callsForRequest();
  caller.initCaller().initUser().setName("alice");
  auto calls = caller.send().getCalls();
  auto request = calls.fileRequest();
  transfer::write(order, request.initOrder());
  auto opened = KJ_ASSERT_NONNULL(session.bulk().open());
  request.setChannel(opened.offer.channel);
  request.setCredit(opened.offer.credit);
  return request.send().then([&port, calls, puts = order.call == FileCall::PUT, opener = kj::mv(opener),
                              channel = kj::mv(opened.channel)](auto response) mutable -> kj::Promise<kj::String> {
    if (response.hasRefusal()) return kj::str("copy failed: ", response.getRefusal().getDetail());
    int fds[2];
    KJ_SYSCALL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
    auto copy = kj::heap<Copy>();
    copy->openers = kj::AutoCloseFd(fds[1]);
    auto newMover = puts ? transfer::newSourceMover : transfer::newDestinationMover;
    auto mover = newMover(port, kj::AutoCloseFd(fds[0]), kj::mv(channel), {false, true}, copy->guard);
    auto running = mover->run();
    copy->mover = kj::mv(mover);
    copy->thread =
        kj::heap<kj::Thread>([&copy = *copy, opener = kj::mv(opener)]() mutable { copy.end = opener(copy); });
    return running.then([&copy = *copy](transfer::MoverEnd) { return copy.outcome(); })
        .attach(kj::mv(copy), kj::mv(calls));
  });
}

FileOrder orderFor(FileCall call, kj::StringPtr path) {
  FileOrder order;
  order.call = call;
  order.path = kj::str(path);
  order.recursive = true;
  order.verify = true;
  return order;
}

}  // namespace

kj::Promise<kj::String> putFile(kj::UnixEventPort& port, Session& session, schema::Guest::Client guest,
                                kj::StringPtr folder, kj::StringPtr name, kj::StringPtr path) {
  auto opener = [at = openFolder(folder), name = kj::str(name)](Copy& copy) mutable {
    kj::Vector<transfer::SourceTop> tops;
    tops.add(transfer::SourceTop{kj::mv(at), kj::str(name), kj::str(name), kj::str(name), kj::String(), false});
    transfer::SourceOptions how;
    how.recursive = true;
    how.verify = true;
    return transfer::runSourceOpener(kj::mv(copy.openers), kj::mv(tops), how, copy.sourceListener);
  };
  return run(port, session, kj::mv(guest), orderFor(FileCall::PUT, path), kj::mv(opener));
}

kj::Promise<kj::String> getFile(kj::UnixEventPort& port, Session& session, schema::Guest::Client guest,
                                kj::StringPtr path, kj::StringPtr folder) {
  auto opener = [at = openFolder(folder)](Copy& copy) mutable {
    transfer::DestinationOptions how;
    how.verify = true;
    how.into = true;
    return transfer::runDestinationOpener(kj::mv(copy.openers), kj::mv(at), how, copy.destinationListener);
  };
  return run(port, session, kj::mv(guest), orderFor(FileCall::GET, path), kj::mv(opener));
}

}  // namespace postern::test
