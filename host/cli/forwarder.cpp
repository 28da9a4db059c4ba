#include "host/cli/forwarder.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "host/cli/failure-text.h"
#include "host/cli/quantity.h"
#include "transport/accept-queue.h"
#include "transport/relay/relay-end.h"

namespace postern::cli {

namespace {

using client::Failure;
using client::FailureKind;
using client::VmClient;

// Before it is tried again to accept, when this process or the machine lacks something.
constexpr auto ACCEPT_PAUSE = 1 * kj::SECONDS;

kj::AutoCloseFd copyOf(int fd) {
  int copy;
  KJ_SYSCALL(copy = fcntl(fd, F_DUPFD_CLOEXEC, 3));
  return kj::AutoCloseFd(copy);
}

bool hasLapsed(const client::Outcome<client::OpenChannel>& outcome) {
  KJ_IF_MAYBE (failed, outcome.tryGet<Failure>()) return failed->kind == FailureKind::LAPSED;
  return false;
}

// Small pieces do not wait for the acknowledgement of others.
void sendAtOnce(int tcp) {
  int on = 1;
  setsockopt(tcp, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

}  // namespace

Forwarder::Forwarder(Invocation& run, const ForwardArguments& arguments, kj::AutoCloseFd listening,
                     kj::Own<VmClient> client)
    : invocation(run),
      arguments(arguments),
      call(kj::str("service.", arguments.service)),
      listener(kj::mv(listening)),
      isTcp(arguments.local.is<TcpAddress>()),
      observer(run.world.eventPort(), listener, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      tasks(*this) {
  use(kj::mv(client));
}

kj::Promise<void> Forwarder::acceptNext() {
  for (;;) {
    kj::AutoCloseFd socket(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (socket.get() >= 0) {
      if (isTcp) sendAtOnce(socket);
      tasks.add(serve(kj::mv(socket)));
      continue;
    }
    int error = errno;
    switch (classifyAcceptFailure(error)) {
      case AcceptFailure::TRY_NEXT:
        break;
      case AcceptFailure::NOTHING:
        return observer.whenBecomesReadable().then([this]() { return acceptNext(); });
      case AcceptFailure::PAUSE:
        tell(client::failure(FailureKind::FAILED, kj::str("cannot accept a connection: ", strerror(error))));
        return invocation.world.timer().afterDelay(ACCEPT_PAUSE).then([this]() { return acceptNext(); });
      case AcceptFailure::OUR_BUG:
        KJ_FAIL_SYSCALL("accept4", error);
    }
  }
}

kj::Promise<void> Forwarder::serve(kj::AutoCloseFd socket) {
  int fd = socket;
  return connect(fd).then([this, socket = kj::mv(socket)](Outcome outcome) mutable {
    KJ_IF_MAYBE (failed, outcome.tryGet<Failure>()) {
      tell(kj::mv(*failed));
      // Who came is to see that it was not an empty answer.
      cutSocket(socket);
    }
  });
}

// A grant that has lapsed is followed by another one, once: nothing of the connection's has passed. A session process
// that goes before it has answered is not: the service may have been reached, and some of the bytes be gone.
kj::Promise<Forwarder::Outcome> Forwarder::connect(int socket) {
  return connectOnce(socket).then([this, socket](Outcome outcome) -> kj::Promise<Outcome> {
    if (hasLapsed(outcome)) return connectOnce(socket);
    return kj::mv(outcome);
  });
}

kj::Promise<Forwarder::Outcome> Forwarder::connectOnce(int socket) {
  return opened().then([this, socket](kj::Maybe<Failure> failed) -> kj::Promise<Outcome> {
    KJ_IF_MAYBE (failure, failed) return Outcome(kj::mv(*failure));
    if (vm == nullptr) return connectOnce(socket);  // gone in the turn between
    auto& used = KJ_ASSERT_NONNULL(vm);
    auto limit = invocation.timeout();
    auto silence = invocation.world.timer().afterDelay(limit).then([limit]() -> Outcome {
      return client::failure(FailureKind::TIMED_OUT, kj::str("no connection within ", describeDuration(limit)));
    });
    return client::connectService(used, arguments.service, copyOf(socket))
        .exclusiveJoin(kj::mv(silence))
        .then(
            [this, &used](Outcome outcome) {
              if (hasLapsed(outcome)) leave(used);
              return outcome;
            },
            [this](kj::Exception&& exception) {
              return Outcome(client::failureOf(exception, kj::str("the session of ", arguments.vm)));
            });
  });
}

kj::Promise<kj::Maybe<Failure>> Forwarder::opened() {
  using Result = kj::Maybe<Failure>;
  if (vm != nullptr) return Result(nullptr);
  KJ_IF_MAYBE (other, opening) return other->addBranch().then([this]() { return opened(); });
  auto done = kj::newPromiseAndFulfiller<void>();
  opening = done.promise.fork();
  return open().then(
      [this, done = kj::mv(done.fulfiller)](client::Outcome<kj::Own<VmClient>> outcome) mutable -> Result {
        opening = nullptr;
        KJ_DEFER(done->fulfill());
        KJ_IF_MAYBE (failed, outcome.tryGet<Failure>()) return kj::mv(*failed);
        use(kj::mv(outcome.get<kj::Own<VmClient>>()));
        return nullptr;
      });
}

kj::Promise<client::Outcome<kj::Own<VmClient>>> Forwarder::open() {
  using Result = client::Outcome<kj::Own<VmClient>>;
  auto limit = invocation.timeout();
  auto silence = invocation.world.timer().afterDelay(limit).then([limit]() -> Result {
    return client::failure(FailureKind::TIMED_OUT, kj::str("posternd did not answer within ", describeDuration(limit)));
  });
  return invocation.world.connectControl(invocation.paths.controlSocket)
      .then([this](client::Outcome<kj::Own<client::ControlClient>> outcome) -> kj::Promise<Result> {
        KJ_IF_MAYBE (failed, outcome.tryGet<Failure>()) return Result(kj::mv(*failed));
        auto& control = outcome.get<kj::Own<client::ControlClient>>();
        auto answer = control->openVm(arguments.vm, {kj::StringPtr(call)});
        return answer.attach(kj::mv(control));
      })
      .exclusiveJoin(kj::mv(silence))
      .catch_([](kj::Exception&& exception) { return Result(client::failureOf(exception, "posternd")); });
}

// It stays as long as its session does, whether it is left or not: the channels that it has opened end with it.
void Forwarder::use(kj::Own<VmClient> client) {
  auto& used = *client;
  vm = used;
  auto gone = used.whenGone().then([this, &used]() {
    // Not within its own callback.
    return kj::evalLater([this, &used]() { leave(used); });
  });
  tasks.add(gone.attach(kj::mv(client)));
}

void Forwarder::leave(VmClient& used) {
  KJ_IF_MAYBE (current, vm) {
    if (current == &used) vm = nullptr;
  }
}

void Forwarder::tell(Failure failure) {
  auto named = Invocation::about(arguments.vm, kj::mv(failure));
  if (!invocation.options.json) {
    invocation.world.error(errorText(named));
    return;
  }
  JsonWriter json;
  json.beginObject().field("ok", false).key("error");
  writeError(json, named);
  json.endObject();
  invocation.world.out(kj::str(json.finish(), '\n'));
}

void Forwarder::taskFailed(kj::Exception&& exception) {
  tell(client::failure(FailureKind::FAILED, kj::str(exception.getDescription())));
}

}  // namespace postern::cli
