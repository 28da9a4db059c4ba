#pragma once
// Briefing: briefing.capnp as checked values, and its way over the socket between broker and agent:
//
//   broker to agent    u32 length in words | message        as often as there is news; sockets come along
//   agent to broker    one byte: its loop is alive          as often as the last briefing asked for
//
// The agent trusts the broker, which is root, and checks nothing but form.

#include <kj/array.h>
#include <kj/async-io.h>
#include <kj/memory.h>
#include <kj/time.h>
#include <kj/vector.h>

#include "guest-agent/identity/machine.h"
#include "guest-agent/services/channel-service.h"
#include "guest-agent/services/consumers.h"
#include "protocol/bundle.h"
#include "protocol/limits.h"

namespace postern::guest {

struct Briefing {
  kj::Duration heartbeat = 1 * kj::SECONDS;
  kj::Duration retry = limits::CONNECT_RETRY_MAX;
  kj::String policyFile;
  kj::String policy;
  kj::Vector<SecretText> bundles;
  Machine machine{nullptr, nullptr};
  kj::Maybe<kj::Duration> pulse;
  kj::Vector<ExportedService> services;
  kj::Vector<ConsumerBriefing> consumers;
};

// A policy of the largest size and every bundle that a machine can show.
constexpr size_t MAX_BRIEFING_WORDS = (size_t(2) << 20) / 8;

// With the length before it. The caller wipes it, and sends the consumers' sockets along, in their order.
kj::Array<kj::byte> briefingBytes(const Briefing& briefing);
// Throws for bytes that are none, and if a socket is missing.
Briefing parseBriefing(kj::ArrayPtr<const kj::byte> message, kj::Vector<kj::AutoCloseFd> sockets);

// One after the other. `stream` outlives the promise.
kj::Promise<void> writeBriefing(kj::AsyncCapabilityStream& stream, Briefing briefing);
// The next one. Fails when the broker is gone.
kj::Promise<Briefing> readBriefing(kj::AsyncCapabilityStream& stream);

}  // namespace postern::guest
