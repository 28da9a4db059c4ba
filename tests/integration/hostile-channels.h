#pragma once
// What a guest with real keys may do about channels that means ill. Asking: Host.connect, as a client or message by
// message. Serving: GuestCalls.connect and services, by the tricks in hostile-channels.cpp.

#include <kj/async-io.h>

#include "protocol/guest.capnp.h"
#include "protocol/session.h"

namespace postern::test {

using ConnectContext = capnp::CallContext<schema::GuestCalls::ConnectParams, schema::GuestCalls::ConnectResults>;
using ServicesContext = capnp::CallContext<schema::GuestCalls::ServicesParams, schema::GuestCalls::ServicesResults>;

// A service of another VM or of the host.
struct Wanted {
  kj::String to;
  kj::String service;
};

// What asking needs of a session with RPC above it.
struct Asking {
  kj::AsyncIoContext& io;
  BulkMux& bulk;
  schema::Host::Client host;
};

// On a session without RPC. Reads FOLDER/plan, a line "KIND TO SERVICE" for each question, and asks them in that order,
// some at a time. Writes FOLDER/answers, a line "KIND QUESTION NANOSECONDS HEX" for each: the question's number, which
// is used again and again, how long the answer took, and all of the answer as it came. Returns how many came.
uint64_t probeChannels(kj::AsyncIoContext& io, Session& session, kj::StringPtr folder);

// `count` questions as fast as they go. Returns how many were answered by a bare denial.
uint64_t floodWithQuestions(Asking asking, uint64_t count, const Wanted& wanted);

constexpr unsigned BAD_OFFERS = 6;
// A question that offers a channel which is none. Returns when it has been answered, or the session is over.
void offerBadChannel(Asking asking, unsigned which, const Wanted& wanted);

// Opens `count` channels, of which it reads nothing. Returns those that were let through.
kj::Vector<kj::Own<BulkChannel>> openCrowd(Asking asking, uint64_t count, const Wanted& wanted);

bool isChannelTrick(kj::StringPtr trick);
// Plays the trick on whoever connects to a service of this guest. What goes on after the answer is added to `plays`.
kj::Promise<void> playChannelTrick(kj::StringPtr trick, BulkMux& bulk, kj::Function<void()>& hangUp,
                                   ConnectContext context, kj::Vector<kj::Promise<void>>& plays);
// Of every trick: names that are no names, and too many of them.
void listEvilServices(ServicesContext context);

}  // namespace postern::test
