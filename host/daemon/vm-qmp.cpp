// What QEMU says of a Vm, where it has a QMP socket or libvirt says it for QEMU.

#include "host/daemon/vm.h"
#include "host/log/log.h"

namespace postern::host {

void Vm::startQmp() {
  qmpWatch = nullptr;
  qmpTrouble = nullptr;
  if (vmRecord.qmp.size() > 0) {
    qmpWatch = newQmpWatch(environment.port, vmRecord.qmp, environment.random, *this);
    return;
  }
  auto endpoint = vmRecord.endpoint();
  KJ_IF_MAYBE (libvirt, endpoint.tryGet<LibvirtEndpoint>()) {
    auto name = kj::str("libvirt's domain ", libvirt->domain);
    auto connect = [this, domain = kj::mv(libvirt->domain)] { return connectMonitor(domain); };
    qmpWatch = newQmpWatch(environment.port, {kj::mv(name), kj::mv(connect)}, environment.random, *this);
  }
}

kj::Promise<Connected> Vm::connectMonitor(kj::StringPtr domain) {
  return environment.libvirt.monitor(domain).then([this](Connected connected) {
    KJ_IF_MAYBE (error, connected.tryGet<TransportError>()) {
      linkFailed(error->text);
    } else {
      linkTrouble = nullptr;
    }
    return connected;
  });
}

kj::Maybe<QmpWatch&> Vm::qmp() {
  KJ_IF_MAYBE (watch, qmpWatch) return **watch;
  return nullptr;
}

void Vm::qmpEvent(QmpWatch::Event event) {
  auto tell = [this](kj::StringPtr text) { environment.handler.event(*this, "vm", kj::str(text)); };
  switch (event) {
    case QmpWatch::Event::STOP:
      health.paused(now());
      tell("QEMU has paused it");
      break;
    case QmpWatch::Event::RESUME:
      health.resumed(now());
      tell("QEMU has resumed it");
      break;
    case QmpWatch::Event::RESET:
      health.vmReset(now());
      tell("QEMU has reset it");
      break;
    case QmpWatch::Event::SHUTDOWN:
      health.vmGone(now());
      tell("QEMU has shut it down");
      break;
    case QmpWatch::Event::PORT_CLOSED:
      // The session itself cannot see that nobody has the guest's end open.
      linkUp = false;
      endedSession = kj::max(endedSession, sessions);
      health.linkLost(now(), LinkLoss::PORT_CLOSED);
      break;
    case QmpWatch::Event::PORT_OPENED:
      break;
  }
  healthMayHaveChanged(now());
  publish();
}

void Vm::qmpConnected() {
  qmpTrouble = nullptr;
  logEvent(LogLevel::INFO, "qmp-connected", "watching QEMU", vmRecord.name);
}

void Vm::qmpLost(kj::StringPtr why) {
  qmpTrouble = kj::str(why);
  logEvent(LogLevel::WARNING, "qmp-lost", why, vmRecord.name);
}

}  // namespace postern::host
