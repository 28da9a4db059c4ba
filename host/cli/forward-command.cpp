#include <kj/debug.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "host/cli/commands.h"
#include "host/cli/forwarder.h"

namespace postern::cli {

namespace {

// Whoever connects uses the service as this user.
constexpr mode_t OWN_SOCKET = 0600;

kj::AutoCloseFd listenOn(const LocalAddress& address) {
  auto listening = listenLocal(address, OWN_SOCKET);
  KJ_IF_MAYBE (error, listening.tryGet<TransportError>()) {
    fail(client::FailureKind::FAILED, kj::str("cannot listen on ", address, ": ", error->text));
  }
  return kj::mv(listening.get<kj::AutoCloseFd>());
}

// With the port that port 0 has become.
kj::String addressOf(const LocalAddress& address, int listener) {
  KJ_IF_MAYBE (tcp, address.tryGet<TcpAddress>()) {
    sockaddr_storage bound{};
    socklen_t size = sizeof(bound);
    KJ_SYSCALL(getsockname(listener, reinterpret_cast<sockaddr*>(&bound), &size));
    auto actual = *tcp;
    // The port is at the same place in both kinds.
    actual.port = ntohs(reinterpret_cast<sockaddr_in&>(bound).sin_port);
    return kj::str(LocalAddress(actual));
  }
  return kj::str(address);
}

void announce(Invocation& run, const ForwardArguments& arguments, kj::String address) {
  if (!run.options.json) {
    run.world.out(kj::str("listening on ", address, '\n'));
    return;
  }
  JsonWriter json;
  json.beginObject().field("ok", true).field("vm", arguments.vm).field("service", arguments.service);
  json.field("listening", address).endObject();
  run.world.out(kj::str(json.finish(), '\n'));
}

}  // namespace

ExitStatus runForward(Invocation& run, const ForwardArguments& arguments) {
  auto call = kj::str("service.", arguments.service);
  auto vm = run.openVm(arguments.vm, {kj::StringPtr(call)});
  auto listener = listenOn(arguments.local);
  KJ_DEFER(removeLocal(arguments.local));
  announce(run, arguments, addressOf(arguments.local, listener));
  Forwarder forwarder(run, arguments, kj::mv(listener), kj::mv(vm));
  run.awaitForever(forwarder.run(), arguments.vm);
  return ExitStatus::DONE;
}

}  // namespace postern::cli
