#include "host/daemon/metrics-page.h"

namespace postern::host {

namespace {

constexpr Colour COLOURS[] = {Colour::GREEN, Colour::YELLOW, Colour::RED, Colour::GRAY};

kj::StringPtr transportName(const VmRecord& record) {
  auto endpoint = record.endpoint();
  KJ_SWITCH_ONEOF(endpoint) {
    KJ_CASE_ONEOF(unixEndpoint, UnixEndpoint) {
      return "unix";
    }
    KJ_CASE_ONEOF(hybrid, HybridEndpoint) {
      return "hybrid";
    }
    KJ_CASE_ONEOF(serial, SerialEndpoint) {
      return "serial";
    }
    KJ_CASE_ONEOF(vsock, VsockEndpoint) {
      return "vsock";
    }
    KJ_CASE_ONEOF(libvirt, LibvirtEndpoint) {
      return "libvirt";
    }
  }
  return "other";
}

double inSeconds(kj::Duration duration) {
  return double(duration / kj::MICROSECONDS) / 1e6;
}

// One family after the other, since a family's samples stand together.
class VmPage {
 public:
  VmPage(Exposition& to, kj::Vector<Vm*> vms, kj::TimePoint now) : to(to), vms(kj::mv(vms)), now(now) {}

  void writeHealth();
  void writeReports();
  void writeSessions();
  void writePings();

 private:
  Exposition& to;
  const kj::Vector<Vm*> vms;
  const kj::TimePoint now;

  static Label nameOf(const Vm& vm) { return {"vm", vm.record().name}; }

  // `value`: of a VM, a number, or null where it has none.
  template <typename Value>
  void each(kj::StringPtr name, MetricType type, kj::StringPtr help, Value&& value) {
    to.family(name, type, help);
    for (auto* vm : vms) {
      kj::Maybe<double> number = value(*vm);
      KJ_IF_MAYBE (n, number) to.sample({nameOf(*vm)}, *n);
    }
  }
  // `counters`: of a VM's metrics.
  template <typename Select>
  void eachSeries(kj::StringPtr name, kj::StringPtr help, Select&& counters) {
    to.family(name, MetricType::COUNTER, help);
    for (auto* vm : vms) {
      const Label label = nameOf(*vm);
      counters(vm->metrics()).write(to, kj::arrayPtr(&label, 1));
    }
  }
};

void VmPage::writeHealth() {
  to.family("postern_vm_info", MetricType::GAUGE, "How a VM is connected; always 1.");
  for (auto* vm : vms) to.sample({nameOf(*vm), {"transport", transportName(vm->record())}}, uint64_t(1));
  to.family("postern_vm_state", MetricType::GAUGE,
            "Whether the VM's heartbeat has this colour: 1 of one, 0 of others.");
  for (auto* vm : vms) {
    for (auto colour : COLOURS) {
      to.sample({nameOf(*vm), {"state", colourName(colour)}}, uint64_t(vm->verdict().colour == colour));
    }
  }
  to.family("postern_vm_state_reason", MetricType::GAUGE, "Why it has that colour; always 1.");
  for (auto* vm : vms) to.sample({nameOf(*vm), {"reason", reasonName(vm->verdict().reason)}}, uint64_t(1));
  each("postern_vm_state_seconds", MetricType::GAUGE, "For how long colour and reason have been these.",
       [this](Vm& vm) { return inSeconds(kj::max(now - vm.verdict().since, 0 * kj::SECONDS)); });
  each("postern_vm_enrolled", MetricType::GAUGE, "Whether the VM has a guest's key.",
       [](Vm& vm) { return double(vm.isEnrolled()); });
  each("postern_vm_connected", MetricType::GAUGE, "Whether a guest is connected.",
       [](Vm& vm) { return double(vm.isConnected()); });
  each("postern_vm_quarantined", MetricType::GAUGE, "Whether the guest was put back and is held apart.",
       [](Vm& vm) { return double(vm.isQuarantined()); });
}

void VmPage::writeReports() {
  each("postern_vm_heartbeat_age_seconds", MetricType::GAUGE, "Since the VM's last heartbeat.",
       [this](Vm& vm) { return vm.lastHeartbeat().map([this](kj::TimePoint at) { return inSeconds(now - at); }); });
  each("postern_vm_heartbeat_interval_seconds", MetricType::GAUGE, "Between heartbeats, as the agent says.",
       [](Vm& vm) {
         return vm.lastReport().map([](const Report& report) { return double(report.intervalMilliseconds) / 1e3; });
       });
  each("postern_vm_agent_lag_seconds", MetricType::GAUGE, "How late the agent's event loop was, as the agent says.",
       [](Vm& vm) {
         return vm.lastReport().map([](const Report& report) { return double(report.loopLagMicroseconds) / 1e6; });
       });
  each("postern_vm_uptime_seconds", MetricType::GAUGE, "Since the guest has booted, as the agent says.", [](Vm& vm) {
    return vm.lastReport().map([](const Report& report) { return double(report.uptimeMilliseconds) / 1e3; });
  });
}

void VmPage::writeSessions() {
  eachSeries("postern_vm_handshakes_total", "Handshakes with guests, by how they ended.",
             [](const VmMetrics& of) -> const Counters& { return of.handshakes; });
  eachSeries("postern_vm_session_losses_total", "Sessions that have ended, after a goodbye or without.",
             [](const VmMetrics& of) -> const Counters& { return of.losses; });
  eachSeries("postern_vm_goodbyes_total", "Goodbyes of guests.",
             [](const VmMetrics& of) -> const Counters& { return of.goodbyes; });
  each("postern_vm_enrolments_total", MetricType::COUNTER, "Guest keys that were taken for the VM.",
       [](Vm& vm) { return double(vm.metrics().enrolments); });
  each("postern_vm_rollbacks_total", MetricType::COUNTER, "Times that the guest was put back to an earlier state.",
       [](Vm& vm) { return double(vm.metrics().rollbacks); });
  each("postern_vm_session_process_up", MetricType::GAUGE, "Whether the VM has a session process.",
       [](Vm& vm) { return double(vm.hasSessionProcess()); });
  each("postern_vm_session_process_deaths_total", MetricType::COUNTER, "Session processes that have ended.",
       [](Vm& vm) { return double(vm.metrics().deadSessionProcesses); });
}

void VmPage::writePings() {
  to.family("postern_ping_seconds", MetricType::HISTOGRAM, "Answers of guests to pings, as the session measured them.");
  for (auto* vm : vms) {
    const Label label = nameOf(*vm);
    if (vm->metrics().pings.count() > 0) vm->metrics().pings.write(to, kj::arrayPtr(&label, 1));
  }
  each("postern_ping_failures_total", MetricType::COUNTER, "Pings that had no answer.",
       [](Vm& vm) { return double(vm.metrics().failedPings); });
}

}  // namespace

void writeVmMetrics(Exposition& to, Daemon& daemon) {
  VmPage page(to, daemon.allVms(), daemon.timer().now());
  page.writeHealth();
  page.writeReports();
  page.writeSessions();
  page.writePings();
}

}  // namespace postern::host
