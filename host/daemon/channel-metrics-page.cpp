#include "host/daemon/metrics-page.h"

namespace postern::host {

namespace {

struct ShownPort {
  kj::StringPtr vm;
  BoardPort port;
};

// One family after the other, since a family's samples stand together.
class PortPage {
 public:
  PortPage(Exposition& to, Daemon& daemon) : to(to) {
    for (auto* vm : daemon.allVms()) ports.add(ShownPort{vm->record().name, vm->shownPort()});
  }

  void each(kj::StringPtr name, MetricType type, kj::StringPtr help, uint64_t BoardPort::*number) {
    to.family(name, type, help);
    for (auto& shown : ports) to.sample({{"vm", shown.vm}}, shown.port.*number);
  }
  void eachWay(kj::StringPtr name, kj::StringPtr help, uint64_t BoardPort::*out, uint64_t BoardPort::*in) {
    to.family(name, MetricType::COUNTER, help);
    for (auto& shown : ports) {
      to.sample({{"vm", shown.vm}, {"direction", "out"}}, shown.port.*out);
      to.sample({{"vm", shown.vm}, {"direction", "in"}}, shown.port.*in);
    }
  }
  void writeBlocked() {
    to.family("postern_port_blocked", MetricType::GAUGE, "Whether the VM's port is blocked, by policy or by hand.");
    for (auto& shown : ports) {
      to.sample({{"vm", shown.vm}, {"by", "policy"}}, uint64_t(shown.port.blockedByPolicy));
      to.sample({{"vm", shown.vm}, {"by", "hand"}}, uint64_t(shown.port.blockedByHand));
    }
  }
  void writeThrottled() {
    to.family("postern_port_throttled_seconds_total", MetricType::COUNTER, "That pieces have waited for a limit.");
    for (auto& shown : ports) to.sample({{"vm", shown.vm}}, double(shown.port.throttledNanoseconds) / 1e9);
  }

 private:
  Exposition& to;
  kj::Vector<ShownPort> ports;
};

}  // namespace

void writeChannelMetrics(Exposition& to, Daemon& daemon) {
  to.gauge("postern_channels", "Channels that live.", double(daemon.channelDesk().living().size()));
  PortPage page(to, daemon);
  page.writeBlocked();
  page.each("postern_port_channels", MetricType::GAUGE, "Channels of the VM that live, on either end.",
            &BoardPort::active);
  page.each("postern_port_opened_total", MetricType::COUNTER, "Channels of the VM that were opened.",
            &BoardPort::opened);
  page.each("postern_port_denied_total", MetricType::COUNTER, "What policy denied the VM, or others of it.",
            &BoardPort::denied);
  page.each("postern_port_refused_total", MetricType::COUNTER, "Channels refused by a limit, or without a target.",
            &BoardPort::refused);
  page.eachWay("postern_port_bytes_total", "Bytes that have passed the VM's port.", &BoardPort::bytesOut,
               &BoardPort::bytesIn);
  page.eachWay("postern_port_messages_total", "Pieces in which they travelled.", &BoardPort::messagesOut,
               &BoardPort::messagesIn);
  page.writeThrottled();
  page.each("postern_port_mirror_dropped_total", MetricType::COUNTER, "Frames for mirrors that did not read.",
            &BoardPort::mirrorDropped);
}

}  // namespace postern::host
