#pragma once
// What a host does with channels, for tests: sends back what comes, says something and hears the answer.

#include <kj/async.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "protocol/guest.capnp.h"
#include "protocol/session.h"

namespace postern::test {

// Until the channel ends; then in order, if it did.
kj::Promise<void> echo(kj::Own<BulkChannel> channel);

// What comes, until there are so many bytes or the channel ends; then how. `channel` outlives the promise.
struct Heard {
  kj::String text;
  kj::Maybe<BulkEnd> end;
};
kj::Promise<Heard> hear(BulkChannel& channel, size_t bytes);

// A channel to a guest's service, for the user: open, or why not.
struct Reached {
  kj::Maybe<kj::Own<BulkChannel>> channel;
  kj::String refusal;  // "denied: why"
};
kj::Promise<Reached> reach(Session& session, schema::GuestCalls::Client calls, kj::StringPtr service);

}  // namespace postern::test
