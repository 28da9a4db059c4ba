#pragma once
// Monitor: what libvirt knows of one domain, in QEMU's own words: the part of QMP that QmpWatch speaks. So a VM of
// libvirt's and a plain QEMU are watched, and ended, by the same code.
//
//   qmp_capabilities   nothing
//   query-status       running, paused, suspended, or shutdown while the domain is off
//   system_reset       virDomainReset
//   quit               virDomainDestroy
//
// and the events STOP, RESUME, RESET, SHUTDOWN and VSERPORT_CHANGE (of the agent's port, by its name). Unlike QEMU it
// goes on while the domain is off: a start is a RESET. Each end has a SHUTDOWN when the guest or the host
// begins it, and one whose reason says what became of the domain: "libvirt: destroyed", migrated, saved, crashed, ...

#include <libvirt/libvirt-qemu.h>

#include "host/libvirt/helper/follower.h"
#include "host/qmp/qmp-line.h"

namespace postern::libvirt {

class Monitor final : public Follower {
 public:
  Monitor(const Libvirt& libvirt, kj::StringPtr domain, int socket);
  ~Monitor() noexcept;
  KJ_DISALLOW_COPY(Monitor);

 private:
  host::QmpLines lines;
  bool off = false;
  int portEvents = -1;

  void lifecycle(int event, int detail) override;
  void rebooted() override { sayEvent("RESET"); }
  void received(kj::ArrayPtr<const char> untrusted) override;

  void carryOut(kj::ArrayPtr<const char> untrustedLine);
  kj::String resultOf(kj::StringPtr command) const;
  kj::String status() const;
  void portChanged(kj::StringPtr details);
  void sayEvent(kj::StringPtr name, kj::StringPtr data = "{}");
};

}  // namespace postern::libvirt
