#pragma once
// ChannelVm: a VM, as those see it who decide about channels: what is known of it, and its session process.

#include <kj/async.h>
#include <kj/function.h>
#include <kj/io.h>

#include "host/daemon/port-counters.h"
#include "host/registry/registry.h"
#include "host/session/session-control.capnp.h"

namespace postern::host {

class ChannelVm {
 public:
  virtual const VmRecord& record() const = 0;
  virtual bool isQuarantined() const = 0;
  // Its session process is there, and has said which channels it holds.
  virtual bool isAttached() const = 0;
  // And a guest is connected with it.
  virtual bool isReachable() const = 0;

  virtual PortCounters& port() = 0;
  // To be called after a change of port(), and when it was blocked or unblocked.
  virtual void showPort() = 0;

  // Session control; fails if there is no session process, or if it goes.
  struct Serving {
    kj::Function<void(schema::Flow::Builder)> fill;
    kj::String caller;  // another VM
    kj::String service;
    kj::AutoCloseFd socket;
  };
  virtual kj::Promise<schema::ServeOutcome> serve(Serving serving) = 0;
  virtual kj::Promise<void> cutChannels(kj::ArrayPtr<const uint64_t> ids) = 0;
  // Ends the process, for another to be started; all that passes it ends.
  virtual void restartSession(kj::StringPtr why) = 0;
};

// By name; null: this host has no such VM.
using FindVm = kj::Function<kj::Maybe<ChannelVm&>(kj::StringPtr name)>;

}  // namespace postern::host
