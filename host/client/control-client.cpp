#include "host/client/control-client.h"

namespace postern::client {

namespace {

using OpenResponse = capnp::Response<host::schema::Control::OpenResults>;

Failure noSocket() {
  return failure(FailureKind::FAILED, kj::str("posternd gave no socket; is it of another version than this program?"));
}

kj::Array<kj::String> textsOf(capnp::List<capnp::Text>::Reader list) {
  return KJ_MAP(text, list) {
    return kj::str(text);
  };
}

}  // namespace

VmClient::VmClient(kj::LowLevelAsyncIoProvider& io, kj::AutoCloseFd socket, kj::Array<kj::String> granted,
                   Special special)
    : connection(io, kj::mv(socket)),
      vmCalls(connection.peer().castAs<host::schema::VmCalls>()),
      grantedCalls(kj::mv(granted)),
      specialFiles(special) {}

ControlClient::ControlClient(kj::LowLevelAsyncIoProvider& io, kj::AutoCloseFd socket)
    : io(io),
      connection(io, kj::mv(socket), host::CONTROL_MESSAGE_WORDS, host::Descriptors::ANY),
      controlCalls(connection.peer().castAs<host::schema::Control>()) {}

kj::Promise<Outcome<kj::Own<ControlClient>>> ControlClient::connect(kj::LowLevelAsyncIoProvider& io, kj::Timer& timer,
                                                                    kj::StringPtr path) {
  using Result = Outcome<kj::Own<ControlClient>>;
  return connectToSocket(timer, path).then([&io](Outcome<kj::AutoCloseFd> outcome) -> Result {
    KJ_SWITCH_ONEOF(outcome) {
      KJ_CASE_ONEOF(failed, Failure) {
        return kj::mv(failed);
      }
      KJ_CASE_ONEOF(socket, kj::AutoCloseFd) {
        return kj::heap<ControlClient>(io, kj::mv(socket));
      }
    }
    KJ_UNREACHABLE;
  });
}

kj::Promise<Outcome<kj::Own<VmClient>>> ControlClient::openVm(kj::StringPtr vm, kj::ArrayPtr<const kj::StringPtr> calls,
                                                              kj::StringPtr path) {
  using Result = Outcome<kj::Own<VmClient>>;
  auto request = controlCalls.openRequest();
  request.setVm(vm);
  if (path.size() > 0) request.setPath(path.asBytes());
  auto list = request.initCalls(static_cast<capnp::uint>(calls.size()));
  for (capnp::uint i = 0; i < calls.size(); ++i) list.set(i, calls[i]);
  return request.send().then([this](OpenResponse response) -> kj::Promise<Result> {
    if (response.hasFailure()) return Result(failureOf(response.getFailure()));
    if (!response.hasSocket()) return Result(noSocket());
    auto granted = textsOf(response.getGranted());
    auto special = response.getSpecial() ? VmClient::Special::YES : VmClient::Special::NO;
    return host::takeDescriptor(response.getSocket())
        .then([this, special, granted = kj::mv(granted)](kj::Maybe<kj::AutoCloseFd> socket) mutable -> Result {
          KJ_IF_MAYBE (fd, socket) {
            return kj::heap<VmClient>(io, kj::mv(*fd), kj::mv(granted), special);
          }
          return noSocket();
        });
  });
}

}  // namespace postern::client
