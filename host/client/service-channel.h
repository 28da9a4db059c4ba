#pragma once
// Channels: connections of this program to services of a VM, through the VM's session process. The bytes pass between
// the session and a stream socket, Unix or TCP; this library does not touch them.

#include "host/client/control-client.h"

namespace postern::client {

// How a channel ended.
enum class ChannelEnd : uint8_t {
  FINISHED,    // both directions, in order
  RESET,       // by either side
  CUT,         // by posternd: a policy that forbids it now, a blocked port, `postern channel close`
  LINK_ENDED,  // the VM's
  UNKNOWN,     // the session process did not say; it may have gone
};

struct OpenChannel {
  uint64_t id;
  kj::Promise<ChannelEnd> end;  // never fails; UNKNOWN as soon as nobody is left who could tell
};

// `stream` becomes the session's; whoever is connected with it talks with the service. Returns when the service's
// target has been reached. A target that was not reached is REFUSED, as is a service that the guest does not export.
// LAPSED: nothing has passed, and a new openVm() gets a grant of the posternd that runs.
kj::Promise<Outcome<OpenChannel>> connectService(VmClient& vm, kj::StringPtr service, kj::AutoCloseFd stream);

}  // namespace postern::client
