#pragma once
// VmCalls for one caller: what a program of the host does with one VM, within what posternd granted it. Each call looks
// at the grant again, has a deadline, and is reported for the audit when it is over. Pings are counted and reported
// once.
//
// What the guest answers is bounded and made printable before it is passed on; capabilities of the caller that go to
// the guest (PowerObserver) go through a relay that bounds what the guest does with them.

#include <kj/vector.h>

#include "host/control/control.capnp.h"
#include "host/local-rpc/passed-sockets.h"
#include "host/session/channels/channel-book.h"
#include "host/session/hub.h"
#include "host/session/operation-log.h"
#include "host/session/transfer-limits.h"

namespace postern::host {

constexpr auto PING_CALL_DEADLINE = 10 * kj::SECONDS;
constexpr auto INFO_CALL_DEADLINE = 15 * kj::SECONDS;
// For "accepted"; what comes later has the caller's own deadline.
constexpr auto POWER_CALL_DEADLINE = 15 * kj::SECONDS;
constexpr unsigned MAX_POWER_STEPS = 4096;
constexpr uint64_t MAX_INFO_WORDS = 12 << 10;  // an answer of the guest to info: 96 KiB

// What the callers of one session process share. All of it outlives their VmCalls.
struct VmCallsEnvironment {
  Hub& hub;
  kj::StringPtr vmName;
  TransferLimits& transfers;
  ChannelBook& channels;
  OperationLog& log;
};

// What a caller's grant brings beside it.
struct PassedWithGrant {
  kj::Vector<kj::Own<LimitGate>> gates = {};                         // by PortLimits::learn()
  kj::Array<kj::AutoCloseFd> mirrors = nullptr;                      // for each of its services; null where it has none
  kj::Own<PassedSockets> sockets = kj::refcounted<PassedSockets>();  // that he passes
};

// `grant` is copied.
schema::VmCalls::Client newVmCalls(const VmCallsEnvironment& environment, schema::Grant::Reader grant,
                                   PassedWithGrant passed = {});

}  // namespace postern::host
