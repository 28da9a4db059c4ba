#include "host/libvirt/helper/monitor.h"

#include <capnp/compat/json.h>
#include <capnp/message.h>
#include <kj/debug.h>

#include "host/libvirt/helper/domain-xml.h"
#include "host/libvirt/helper/qmp.capnp.h"

namespace postern::libvirt {

namespace {

constexpr auto GREETING = "OK\n{\"QMP\":{\"version\":{},\"capabilities\":[]}}\n"_kj;
constexpr auto AGENT_PORT = "org.postern.agent.0"_kj;

// By detail of VIR_DOMAIN_EVENT_STOPPED.
kj::StringPtr endOf(int detail) {
  switch (detail) {
    case VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN:
      return "shut down";
    case VIR_DOMAIN_EVENT_STOPPED_DESTROYED:
      return "destroyed";
    case VIR_DOMAIN_EVENT_STOPPED_CRASHED:
      return "crashed";
    case VIR_DOMAIN_EVENT_STOPPED_MIGRATED:
      return "migrated";
    case VIR_DOMAIN_EVENT_STOPPED_SAVED:
      return "saved";
    case VIR_DOMAIN_EVENT_STOPPED_FAILED:
      return "failed";
    case VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT:
      return "stopped for a snapshot";
    default:
      return "stopped";
  }
}

kj::StringPtr statusOf(int state) {
  switch (state) {
    case VIR_DOMAIN_PAUSED:
      return "paused";
    case VIR_DOMAIN_PMSUSPENDED:
      return "suspended";
    case VIR_DOMAIN_SHUTDOWN:
    case VIR_DOMAIN_SHUTOFF:
    case VIR_DOMAIN_CRASHED:
      return "shutdown";
    default:
      return "running";
  }
}

kj::String refusalOf(uint32_t id, kj::StringPtr why) {
  capnp::MallocMessageBuilder message;
  auto refusal = message.initRoot<schema::Refusal>();
  refusal.setId(id);
  refusal.initError().setClass("GenericError");
  refusal.getError().setDesc(why);
  return capnp::JsonCodec().encode(refusal.asReader());
}

}  // namespace

Monitor::Monitor(const Libvirt& libvirt, kj::StringPtr domain, int socket) : Follower(libvirt, domain, socket) {
  off = !libvirt.find(domain).isActive();
  auto onPort = [](virConnectPtr, virDomainPtr about, const char*, long long, unsigned, const char* details,
                   void* self) {
    auto& monitor = *static_cast<Monitor*>(self);
    if (details != nullptr) monitor.heard(about, [&] { monitor.portChanged(details); });
  };
  // Not of libvirt's stable interface; without it a closed port is merely a silent one.
  portEvents =
      virConnectDomainQemuMonitorEventRegister(libvirt.get(), nullptr, "VSERPORT_CHANGE", onPort, this, nullptr, 0);
  say(GREETING);
}

Monitor::~Monitor() noexcept {
  if (portEvents >= 0) virConnectDomainQemuMonitorEventDeregister(libvirt.get(), portEvents);
}

void Monitor::lifecycle(int event, int detail) {
  switch (event) {
    case VIR_DOMAIN_EVENT_STARTED:
      off = false;
      return sayEvent("RESET");
    case VIR_DOMAIN_EVENT_SUSPENDED:
      return sayEvent("STOP");
    case VIR_DOMAIN_EVENT_RESUMED:
      // Of a domain that starts it comes before STARTED.
      if (!off) sayEvent("RESUME");
      return;
    case VIR_DOMAIN_EVENT_SHUTDOWN:
      return sayEvent("SHUTDOWN", detail == VIR_DOMAIN_EVENT_SHUTDOWN_GUEST ? "{\"guest\":true}" : "{\"guest\":false}");
    case VIR_DOMAIN_EVENT_STOPPED:
      off = true;
      return sayEvent("SHUTDOWN", kj::str("{\"reason\":\"libvirt: ", endOf(detail), "\"}"));
    default:
      return;
  }
}

void Monitor::sayEvent(kj::StringPtr name, kj::StringPtr data) {
  say(kj::str("{\"event\":\"", name, "\",\"data\":", data, "}\n"));
}

// QEMU names the port by the alias that libvirt gave its device.
void Monitor::portChanged(kj::StringPtr details) {
  capnp::MallocMessageBuilder message;
  auto change = message.initRoot<schema::PortChange>();
  capnp::JsonCodec().decode(details, change);
  KJ_IF_MAYBE (alias, DomainXml(libvirt.find(domain).xml(Domain::Which::RUNNING)).channelAlias()) {
    if (change.getId() != *alias) return;
    change.setId(AGENT_PORT);
    sayEvent("VSERPORT_CHANGE", capnp::JsonCodec().encode(change.asReader()));
  }
}

void Monitor::received(kj::ArrayPtr<const char> untrusted) {
  lines.begin(untrusted);
  for (;;) {
    auto next = lines.next();
    KJ_IF_MAYBE (line, next.tryGet<host::QmpLines::Line>()) {
      carryOut(line->untrustedText);
      continue;
    }
    if (next.is<host::QmpLines::TooLong>()) end();
    return;
  }
}

void Monitor::carryOut(kj::ArrayPtr<const char> untrustedLine) {
  capnp::MallocMessageBuilder message;
  auto command = message.initRoot<schema::Command>();
  auto thrown = kj::runCatchingExceptions([&] { capnp::JsonCodec().decode(untrustedLine, command); });
  if (thrown != nullptr) return end();
  try {
    say(kj::str("{\"return\":", resultOf(command.getExecute()), ",\"id\":", command.getId(), "}\n"));
  } catch (LibvirtFailure& failure) {
    say(kj::str(refusalOf(command.getId(), failure.text), '\n'));
  }
}

kj::String Monitor::resultOf(kj::StringPtr command) const {
  if (command == "query-status") return status();
  if (command == "system_reset") {
    libvirt.find(domain).reset();
  } else if (command == "quit") {
    libvirt.find(domain).destroy();
  } else if (command != "qmp_capabilities") {
    throw LibvirtFailure{kj::str("not a command of this monitor")};
  }
  return kj::str("{}");
}

kj::String Monitor::status() const {
  auto word = statusOf(libvirt.find(domain).state());
  return kj::str("{\"status\":\"", word, "\",\"running\":", word == "running", "}");
}

}  // namespace postern::libvirt
