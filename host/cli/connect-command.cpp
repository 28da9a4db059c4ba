#include <fcntl.h>
#include <kj/debug.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "host/cli/commands.h"
#include "host/client/descriptor-copy.h"
#include "host/client/service-channel.h"

namespace postern::cli {

namespace {

using client::ChannelEnd;
using client::CopyEnd;
using client::FailureKind;

// The session says how the channel ended when it tells its socket.
constexpr auto LAST_WORD = 2 * kj::SECONDS;
constexpr auto DISCONNECT_SHOWS = 100 * kj::MILLISECONDS;

kj::AutoCloseFd copyOf(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 3));
  return kj::AutoCloseFd(copy);
}

// Standard input and output, each in its direction, and a socket.
class Streams {
 public:
  Streams(World& world, kj::AutoCloseFd given)
      : world(world),
        socket(kj::mv(given)),
        there(world.inputStream(), copyOf(socket)),
        back(copyOf(socket), world.outputStream()) {}

  // When both directions are over; or at once when input or output failed, or output's reader has gone.
  kj::Promise<void> whenOver() {
    // Each is looked at when it is over, not when both are.
    auto one = there.whenOver().then([this](CopyEnd end) { thereOver(end); }).eagerlyEvaluate(nullptr);
    auto other = back.whenOver().then([this](CopyEnd end) { backOver(end); }).eagerlyEvaluate(nullptr);
    return kj::joinPromises(kj::arr(kj::mv(one), kj::mv(other))).exclusiveJoin(kj::mv(broken.promise));
  }

  CopyEnd input() const { return thereEnd; }
  CopyEnd output() const { return backEnd; }
  // As far as the socket can tell.
  bool isInOrder() const { return thereEnd.kind == CopyEnd::Kind::FINISHED && backEnd.kind == CopyEnd::Kind::FINISHED; }
  // The service had ended its direction when it was still ready to take more.
  bool hadFinishedFirst() const { return finishedFirst; }

 private:
  World& world;
  const kj::AutoCloseFd socket;
  client::DescriptorCopy there;
  client::DescriptorCopy back;
  CopyEnd thereEnd;
  CopyEnd backEnd;
  bool isThereOver = false;
  bool finishedFirst = false;
  kj::PromiseFulfillerPair<void> broken = kj::newPromiseAndFulfiller<void>();

  void thereOver(CopyEnd end) {
    thereEnd = end;
    isThereOver = true;
    if (end.kind == CopyEnd::Kind::INPUT_FAILED) broken.fulfiller->fulfill();
  }
  void backOver(CopyEnd end) {
    backEnd = end;
    if (end.kind == CopyEnd::Kind::OUTPUT_GONE || end.kind == CopyEnd::Kind::OUTPUT_FAILED) {
      broken.fulfiller->fulfill();
      return;
    }
    finishedFirst = end.kind == CopyEnd::Kind::FINISHED && !isThereOver && !hasHungUp();
    world.endOutput();
  }
  bool hasHungUp() const {
    pollfd polled = {socket, 0, 0};
    return poll(&polled, 1, 0) > 0;
  }
};

class Connection {
 public:
  Connection(Invocation& run, const ConnectArguments& arguments)
      : run(run), arguments(arguments), call(kj::str("service.", arguments.service)) {}

  ExitStatus go() {
    auto vm = open();
    auto pair = host::newSocketPair(SOCK_STREAM);
    auto channel = connect(*vm, kj::mv(pair.second));
    Streams streams(run.world, kj::mv(pair.first));
    run.awaitForever(streams.whenOver(), arguments.vm);
    if (streams.output().kind == CopyEnd::Kind::OUTPUT_GONE) return ExitStatus::FAILED;
    check("write the output", streams.output(), CopyEnd::Kind::OUTPUT_FAILED);
    check("read the input", streams.input(), CopyEnd::Kind::INPUT_FAILED);
    judge(endOf(channel), streams, *vm);
    return ExitStatus::DONE;
  }

 private:
  Invocation& run;
  const ConnectArguments& arguments;
  const kj::String call;

  kj::Own<client::VmClient> open() { return run.openVm(arguments.vm, {kj::StringPtr(call)}); }

  client::OpenChannel connect(client::VmClient& vm, kj::AutoCloseFd socket) {
    auto outcome = attempt(vm, kj::mv(socket));
    KJ_IF_MAYBE (failed, outcome.tryGet<client::Failure>()) {
      throw CommandFailure{Invocation::about(arguments.vm, kj::mv(*failed))};
    }
    return kj::mv(outcome.get<client::OpenChannel>());
  }
  client::Outcome<client::OpenChannel> attempt(client::VmClient& vm, kj::AutoCloseFd socket) {
    try {
      return run.await(client::connectService(vm, arguments.service, kj::mv(socket)), arguments.vm, run.timeout());
    } catch (const CommandFailure& failed) {
      // A socket that ended: posternd knows whether that was policy, which it says by not giving out another.
      if (failed.failure.kind == FailureKind::FAILED) open();
      throw;
    }
  }

  void check(kj::StringPtr what, CopyEnd end, CopyEnd::Kind failed) {
    if (end.kind == failed) fail(FailureKind::FAILED, kj::str("cannot ", what, ": ", strerror(end.error)));
  }

  ChannelEnd endOf(client::OpenChannel& channel) {
    auto silence = run.world.timer().afterDelay(LAST_WORD).then([]() { return ChannelEnd::UNKNOWN; });
    return run.await(channel.end.exclusiveJoin(kj::mv(silence)), arguments.vm, 2 * LAST_WORD);
  }
  bool isGone(client::VmClient& vm) {
    auto notNow = run.world.timer().afterDelay(DISCONNECT_SHOWS).then([]() { return false; });
    auto gone = vm.whenGone().then([]() { return true; }).exclusiveJoin(kj::mv(notNow));
    return run.await(kj::mv(gone), arguments.vm, 2 * LAST_WORD);
  }

  void judge(ChannelEnd end, const Streams& streams, client::VmClient& vm) {
    switch (end) {
      case ChannelEnd::FINISHED:
        return;
      case ChannelEnd::RESET:
        if (streams.hadFinishedFirst()) return;
        failed(FailureKind::FAILED, "was reset by the other end");
      case ChannelEnd::LINK_ENDED:
        failed(FailureKind::NOT_CONNECTED, "ended, because the link to the VM did");
      case ChannelEnd::CUT:
        open();  // fails if policy forbids it now, and says by which rule
        failed(FailureKind::FAILED, "was closed on the host, by hand or because the policy was another for a while");
      case ChannelEnd::UNKNOWN:
        if (!isGone(vm)) {
          if (streams.isInOrder() || streams.hadFinishedFirst()) return;
          failed(FailureKind::FAILED, "was reset by the other end");
        }
        open();
        failed(FailureKind::FAILED, "ended, because the VM's session process did");
    }
    KJ_UNREACHABLE;
  }
  [[noreturn]] void failed(FailureKind kind, kj::StringPtr what) {
    fail(kind, kj::str(arguments.vm, ": the connection to service '", arguments.service, "' ", what));
  }
};

}  // namespace

ExitStatus runConnect(Invocation& run, const ConnectArguments& arguments) {
  return Connection(run, arguments).go();
}

}  // namespace postern::cli
