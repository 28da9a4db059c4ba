#pragma once
// ControlClient: a program's connection to posternd; VmClient: its connection to one VM's session process, which
// posternd introduces. Everything that a caller may ask is in host/control/control.capnp.
//
// posternd knows the caller by the credentials of the socket: there is nothing to log in with. What is granted ends
// with the VmClient, or when posternd cuts its socket (calls then fail as if the session had gone).
//
//   auto outcome = ControlClient::connect(io, timer, host::Paths("").controlSocket).wait(waitScope);
//   auto& client = *outcome.get<kj::Own<ControlClient>>();  // or its Failure
//   auto vm = kj::mv(client.openVm("web1", {"ping"_kj}).wait(waitScope).get<kj::Own<VmClient>>());
//   vm->calls().pingRequest().send().wait(waitScope).getLinkNanoseconds();
//
// No function here has a time limit of its own: the caller cancels by dropping the promise. All on one loop; the
// provider and the timer outlive the clients, a VmClient may outlive its ControlClient.

#include <kj/async-io.h>
#include <kj/timer.h>

#include "host/client/failure.h"
#include "host/local-rpc/local-rpc.h"

namespace postern::client {

class VmClient {
 public:
  // What may come out of the guest with file.get: set-id and sticky bits, devices and security attributes as well?
  enum class Special : uint8_t { NO, YES };
  VmClient(kj::LowLevelAsyncIoProvider& io, kj::AutoCloseFd socket, kj::Array<kj::String> granted, Special special);
  KJ_DISALLOW_COPY(VmClient);

  host::schema::VmCalls::Client calls() { return vmCalls; }
  // Which of the calls that were asked for policy granted.
  kj::ArrayPtr<const kj::String> granted() const { return grantedCalls; }
  Special special() const { return specialFiles; }
  // The session process has gone, or posternd has cut what was granted.
  kj::Promise<void> whenGone() { return connection.onDisconnect(); }

 private:
  host::LocalRpc connection;
  host::schema::VmCalls::Client vmCalls;
  kj::Array<kj::String> grantedCalls;
  const Special specialFiles;
};

class ControlClient {
 public:
  // posternd's socket is `path` (host/paths.h). The failure says whether posternd is not running or who may ask it.
  static kj::Promise<Outcome<kj::Own<ControlClient>>> connect(kj::LowLevelAsyncIoProvider& io, kj::Timer& timer,
                                                              kj::StringPtr path);

  ControlClient(kj::LowLevelAsyncIoProvider& io, kj::AutoCloseFd socket);
  KJ_DISALLOW_COPY(ControlClient);

  host::schema::Control::Client control() { return controlCalls; }

  // Fails if policy grants none of the calls. With file.* calls goes the path that they are for, as canonical as
  // FileOrder's; with others none.
  kj::Promise<Outcome<kj::Own<VmClient>>> openVm(kj::StringPtr vm, kj::ArrayPtr<const kj::StringPtr> calls,
                                                 kj::StringPtr path = nullptr);

 private:
  kj::LowLevelAsyncIoProvider& io;
  host::LocalRpc connection;
  host::schema::Control::Client controlCalls;
};

// A socket that is connected to the one at `path`. Waits while the listener's queue is full.
kj::Promise<Outcome<kj::AutoCloseFd>> connectToSocket(kj::Timer& timer, kj::StringPtr path);

}  // namespace postern::client
