#pragma once
// File calls: what VmCalls.file does for one caller. The order is decided by the grant's scope; then the guest is
// asked; then, for everything but mkdir and remove, a mover carries frames between the caller's opener and a bulk
// channel, under a FileGuard. The session opens no file: the caller's opener does, and passes descriptors.
//
// It has ended when the caller, the grant, the link or the opener has, and always leaves its record in the audit.

#include "host/control/control.capnp.h"
#include "host/local-rpc/passed-sockets.h"
#include "host/session/hub.h"
#include "host/session/operation-log.h"
#include "host/session/session-control.capnp.h"
#include "host/session/transfer-limits.h"

namespace postern::host {

// For the guest to have its opener running; a transfer itself takes as long as it takes.
constexpr auto FILE_CALL_DEADLINE = 60 * kj::SECONDS;
// mkdir, and removing a tree.
constexpr auto FILE_CHANGE_DEADLINE = 15 * kj::MINUTES;

struct FileCallEnvironment {
  Hub& hub;
  TransferLimits& limits;
  OperationLog& log;
  schema::Grant::Reader grant;  // it has the call
  PassedSockets& sockets;       // that the caller passes
};
using FileCallContext = capnp::CallContext<schema::VmCalls::FileParams, schema::VmCalls::FileResults>;

// `guest` is null if none is connected: the failure says so already. What `environment` refers to outlives the promise.
kj::Promise<void> runFileCall(const FileCallEnvironment& environment, FileCallContext context,
                              kj::Maybe<postern::schema::GuestCalls::Client> guest);

}  // namespace postern::host
