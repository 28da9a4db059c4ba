#pragma once
// Follower: one domain, by its name, and the program at the other end of a socket that wants to know of it. Guarantees
// that events come in libvirt's order, and that run() returns when the other end has gone or libvirtd has. What a
// method throws when libvirt calls it, run() throws: nothing is thrown through libvirt's own functions.
//
// Runs libvirt's own event loop, one in a process. Writing waits for the other end.

#include <kj/common.h>
#include <kj/exception.h>
#include <kj/string.h>

#include "host/libvirt/helper/libvirt.h"

namespace postern::libvirt {

class Follower {
 public:
  // Everything outlives this.
  Follower(const Libvirt& libvirt, kj::StringPtr domain, int socket);
  virtual ~Follower() noexcept;
  KJ_DISALLOW_COPY(Follower);

  void run();

 protected:
  const Libvirt& libvirt;
  const kj::StringPtr domain;
  const int socket;

  virtual void lifecycle(int event, int detail) = 0;  // VIR_DOMAIN_EVENT_STARTED, ...
  virtual void rebooted() {}
  // Bytes of the other end.
  virtual void received(kj::ArrayPtr<const char> untrusted) = 0;

  void say(kj::StringPtr text);
  void end() { ended = true; }

  // For what libvirt calls: does it if it is about this domain.
  template <typename Do>
  void heard(virDomainPtr about, Do&& what) {
    if (domain == virDomainGetName(about)) guarded(what);
  }

 private:
  kj::Maybe<LibvirtFailure> failure;
  bool ended = false;
  int watch = -1;
  int lifecycleEvents = -1;
  int rebootEvents = -1;

  void readSocket();
  template <typename Do>
  void guarded(Do&& what) {
    try {
      what();
    } catch (LibvirtFailure& thrown) {
      failure = kj::mv(thrown);
      end();
    } catch (kj::Exception& thrown) {
      failure = LibvirtFailure{kj::str(thrown.getDescription())};
      end();
    }
  }
};

}  // namespace postern::libvirt
