#include "host/client/control-client.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <string.h>

namespace postern::client {

namespace {

using OpenResponse = capnp::Response<host::schema::Control::OpenResults>;

kj::Array<kj::String> textsOf(capnp::List<capnp::Text>::Reader list) {
  return KJ_MAP(text, list) { return kj::str(text); };
}

Failure noSocket() {
  return failure(FailureKind::FAILED, kj::str("posternd gave no socket; is it of another version than this program?"));
}

// The capability keeps its descriptor; this one is ours.
Outcome<kj::AutoCloseFd> duplicate(kj::Maybe<int> descriptor) {
  KJ_IF_MAYBE (fd, descriptor) {
    int copy = fcntl(*fd, F_DUPFD_CLOEXEC, 0);
    if (copy >= 0) return kj::AutoCloseFd(copy);
    int error = errno;
    return failure(FailureKind::FAILED, kj::str("cannot take the session's socket: ", strerror(error)));
  }
  return noSocket();
}

}  // namespace

VmClient::VmClient(kj::Own<kj::AsyncCapabilityStream> stream, kj::Array<kj::String> granted)
    : connection(kj::mv(stream)),
      vmCalls(connection.bootstrap().castAs<host::schema::VmCalls>()),
      grantedCalls(kj::mv(granted)) {}

ControlClient::ControlClient(kj::LowLevelAsyncIoProvider& io, kj::Own<kj::AsyncCapabilityStream> stream)
    : io(io),
      connection(kj::mv(stream)),
      controlCalls(connection.bootstrap().castAs<host::schema::Control>()) {}

kj::Promise<Outcome<kj::Own<ControlClient>>> ControlClient::connect(kj::LowLevelAsyncIoProvider& io, kj::Timer& timer,
                                                                    kj::StringPtr path) {
  using Result = Outcome<kj::Own<ControlClient>>;
  return connectToSocket(io, timer, path).then([&io](Outcome<kj::Own<kj::AsyncCapabilityStream>> outcome) -> Result {
    KJ_SWITCH_ONEOF(outcome) {
      KJ_CASE_ONEOF(failed, Failure) { return kj::mv(failed); }
      KJ_CASE_ONEOF(stream, kj::Own<kj::AsyncCapabilityStream>) {
        return kj::heap<ControlClient>(io, kj::mv(stream));
      }
    }
    KJ_UNREACHABLE;
  });
}

kj::Promise<Outcome<kj::Own<VmClient>>> ControlClient::openVm(kj::StringPtr vm,
                                                              kj::ArrayPtr<const kj::StringPtr> calls) {
  using Result = Outcome<kj::Own<VmClient>>;
  auto request = controlCalls.openRequest();
  request.setVm(vm);
  auto list = request.initCalls(static_cast<capnp::uint>(calls.size()));
  for (capnp::uint i = 0; i < calls.size(); ++i) list.set(i, calls[i]);
  return request.send().then([this](OpenResponse response) -> kj::Promise<Result> {
    if (response.hasFailure()) return Result(failureOf(response.getFailure()));
    if (!response.hasSocket()) return Result(noSocket());
    auto socket = response.getSocket();
    auto descriptor = socket.getFd();
    return descriptor.attach(kj::mv(socket)).then([this, response = kj::mv(response)](kj::Maybe<int> fd) -> Result {
      auto own = duplicate(fd);
      KJ_SWITCH_ONEOF(own) {
        KJ_CASE_ONEOF(failed, Failure) { return kj::mv(failed); }
        KJ_CASE_ONEOF(socketFd, kj::AutoCloseFd) {
          return kj::heap<VmClient>(io.wrapUnixSocketFd(kj::mv(socketFd)), textsOf(response.getGranted()));
        }
      }
      KJ_UNREACHABLE;
    });
  });
}

}  // namespace postern::client
