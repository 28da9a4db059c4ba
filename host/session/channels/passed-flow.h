#pragma once
// What posternd passes with a channel: its sockets, its rule and limits, and where it is mirrored to
// (session-control.capnp's Flow), taken out of the message.

#include <kj/async.h>
#include <kj/io.h>

#include "host/session/channels/channel-book.h"
#include "host/session/session-control.capnp.h"

namespace postern::host {

struct PassedFlow {
  kj::Maybe<PassedRule> rule;
  kj::Maybe<MirroredChannel::Terms> mirror;
};

// What the flow says of limits counts from now on. `book` and what the reader belongs to outlive the promise.
kj::Promise<PassedFlow> takeFlow(ChannelBook& book, schema::Flow::Reader flow);
// Null: what was passed is no socket of a channel.
kj::Promise<kj::Maybe<kj::Own<RelayEnd>>> takeEnd(kj::UnixEventPort& port,
                                                  kj::Maybe<schema::Descriptor::Client> socket);

// Null: none was passed.
kj::Promise<kj::AutoCloseFd> takeSocket(kj::Maybe<schema::Descriptor::Client> descriptor);
// The socket of a grant's or a flow's mirror.
kj::Promise<kj::AutoCloseFd> takeMirrorSocket(schema::Mirror::Reader mirror);
// The same as a MirroredChannel takes it.
MirroredChannel::Terms mirrorTerms(kj::UnixEventPort& port, schema::Mirror::Reader mirror, kj::AutoCloseFd socket);

}  // namespace postern::host
