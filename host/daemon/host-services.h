#pragma once
// HostServices: what guests may reach on the host, as [service.NAME] of postern.toml says it: connects to the target or
// starts the program, for a guest that was granted it, tells it who connects, and hands out the connected socket.
//
// A program serves one channel: its standard input and output are one end of a socket pair. It sees their end when the
// channel ends, and has PROGRAM_GRACE then. It ends with posternd, too.
// One loop; does not log.

#include <kj/async-unix.h>
#include <kj/map.h>
#include <kj/one-of.h>
#include <kj/refcount.h>

#include "host/config/config.h"
#include "transport/children/children.h"
#include "transport/close-elsewhere.h"

namespace postern::host {

constexpr auto PROGRAM_GRACE = 5 * kj::SECONDS;
// Programs that serve guests at one time, those included that are about to end.
constexpr size_t MAX_HOST_PROGRAMS = 256;
// Of those for one VM, so that it takes four to leave none for the others.
constexpr size_t MAX_HOST_PROGRAMS_PER_VM = MAX_HOST_PROGRAMS / 4;

class HostServices {
 public:
  // `tell`: what an administrator has to know of programs, a line each. `port` outlives this.
  HostServices(kj::UnixEventPort& port, Children::Tell tell);
  KJ_DISALLOW_COPY(HostServices);

  // From now on. What was opened before goes on.
  void set(kj::Vector<HostService> services);

  struct Opened {
    StrangersFd socket;
    // Of a program: resolves at its end; dropping it ends the program.
    kj::Maybe<kj::Promise<void>> program;
  };
  struct Refused {
    kj::StringPtr reason;  // static: "not-exported", "not-reached", "too-many"
    kj::String text;       // for the administrator
  };
  // `peer`: "vm:web1". Within SERVICE_CONNECT_DEADLINE.
  kj::Promise<kj::OneOf<Opened, Refused>> open(kj::StringPtr service, kj::StringPtr peer);

  // All that the service's target is, as a text; empty: there is no such service.
  kj::String identityOf(kj::StringPtr service) const;

 private:
  using Outcome = kj::OneOf<Opened, Refused>;
  struct Service final : public kj::Refcounted, public HostService {
    explicit Service(HostService&& service) : HostService(kj::mv(service)) {}
  };

  kj::UnixEventPort& port;
  Children::Tell tell;
  kj::HashMap<kj::String, kj::Own<Children>> programs;  // by peer
  kj::HashMap<kj::String, kj::Own<Service>> services;

  kj::Promise<Outcome> connect(kj::Own<Service> service, const LocalAddress& address, kj::StringPtr peer);
  kj::OneOf<Children*, Refused> roomFor(kj::StringPtr peer);
  kj::Promise<Outcome> start(const Service& service, const ServiceProgram& program, kj::StringPtr peer);
};

}  // namespace postern::host
