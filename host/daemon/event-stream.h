#pragma once
// EventStream: the event log for one listener, one event at a time: a listener that does not read holds up itself. He
// hears of the VMs that he may know of, and of an event that names two only if he may know of both; of the host itself
// with admin.audit.

#include <kj/refcount.h>

#include "host/control/control.capnp.h"
#include "host/daemon/daemon.h"

namespace postern::host {

class EventStream final : public kj::Refcounted {
 public:
  // Events after `seen`; of one VM, or, if `vm` is empty, of all. `daemon` outlives this.
  EventStream(Daemon& daemon, kj::Own<const LocalCaller> who, kj::StringPtr vm, uint64_t seen,
              schema::EventSink::Client sink)
      : daemon(daemon), who(kj::mv(who)), vm(kj::str(vm)), seen(seen), sink(kj::mv(sink)) {}

  enum class Until : uint8_t { LAST, FOREVER };
  // This outlives the promise.
  kj::Promise<void> run(Until until);

 private:
  Daemon& daemon;
  kj::Own<const LocalCaller> who;
  kj::String vm;
  uint64_t seen;
  schema::EventSink::Client sink;

  bool maySee(kj::StringPtr name);
  bool isFor(const Event& event);
  kj::Promise<void> send(const Event& event);
};

}  // namespace postern::host
