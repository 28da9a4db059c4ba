#pragma once
// Control.channels, ports, blockPort and closeChannel (control.capnp): what a program of the host sees of channels, and
// what an administrator does about them. A channel is shown to those who may know of all its VMs; it can be closed, and
// a port be blocked, with admin.block.

#include "host/control/control.capnp.h"
#include "host/daemon/daemon.h"

namespace postern::host {

// In one answer: what is above is left out.
constexpr unsigned MAX_SHOWN_CHANNELS = 8192;
constexpr unsigned MAX_SHOWN_RULES = 8192;

using ChannelsContext = capnp::CallContext<schema::Control::ChannelsParams, schema::Control::ChannelsResults>;
using PortsContext = capnp::CallContext<schema::Control::PortsParams, schema::Control::PortsResults>;
using BlockPortContext = capnp::CallContext<schema::Control::BlockPortParams, schema::Control::BlockPortResults>;
using CloseChannelContext =
    capnp::CallContext<schema::Control::CloseChannelParams, schema::Control::CloseChannelResults>;

// `daemon` outlives the promise.
kj::Promise<void> listChannels(Daemon& daemon, kj::Own<const LocalCaller> who, ChannelsContext context);
void listPorts(Daemon& daemon, const LocalCaller& who, PortsContext context);
void blockPort(Daemon& daemon, const LocalCaller& who, BlockPortContext context);
void closeChannel(Daemon& daemon, const LocalCaller& who, CloseChannelContext context);

}  // namespace postern::host
