#include "host/libvirt/helper/preparation.h"

#include <kj/vector.h>

#include "host/libvirt/helper/domain-xml.h"
#include "transport/endpoint.h"

namespace postern::libvirt {

namespace {

using Which = Domain::Which;

bool hasWayIn(const DomainXml& xml) {
  if (xml.hasChannel() && xml.channelType() != "unix") {
    throw LibvirtFailure{kj::str("the domain's channel org.postern.agent.0 is of type ", xml.channelType(),
                                 ", and Postern needs one of type unix; change it with `virsh edit`")};
  }
  return xml.hasChannel() || xml.hasVsock();
}

class Preparation {
 public:
  Preparation(const Libvirt& libvirt, kj::StringPtr name, kj::StringPtr bundleFile)
      : libvirt(libvirt),
        bundleFile(bundleFile),
        domain(libvirt.find(name)),
        active(domain.isActive()),
        persistent(domain.isPersistent()) {}

  kj::String run() {
    if (persistent) addChannel(Which::CONFIGURED, "channel org.postern.agent.0 added to the configuration");
    if (active) addToRunning();
    if (persistent) {
      nameBundle();
    } else {
      did("bundle not delivered: a transient domain keeps no configuration; copy it into the guest and run "
          "`postern-agent join FILE` there");
    }
    return kj::str(kj::strArray(lines, "\n"), '\n');
  }

 private:
  const Libvirt& libvirt;
  const kj::StringPtr bundleFile;
  const Domain domain;
  const bool active;
  const bool persistent;
  kj::Vector<kj::String> lines;

  void did(kj::StringPtr what) { lines.add(kj::str("did ", what)); }

  void addChannel(Which which, kj::StringPtr done) {
    if (hasWayIn(DomainXml(domain.xml(which)))) return;
    domain.attach(channelDevice(), which);
    did(done);
  }

  void addToRunning() {
    try {
      addChannel(Which::RUNNING, "channel org.postern.agent.0 added to the running domain");
      lines.add(
          kj::str("restart the bundle is read when the domain starts; to do without, copy it into the guest and "
                  "run `postern-agent join FILE` there"));
    } catch (LibvirtFailure& failure) {
      lines.add(kj::str("restart the running domain cannot take the channel (", failure.text, ")"));
    }
  }

  void nameBundle() {
    libvirt.define(DomainXml(domain.xml(Which::CONFIGURED)).withBundle(bundleFile));
    did(kj::str("bundle delivered at the domain's next start, by fw_cfg from ", bundleFile));
  }
};

}  // namespace

kj::String inspect(const Libvirt& libvirt, kj::StringPtr name) {
  auto domain = libvirt.find(name);
  DomainXml xml(domain.xml(domain.isPersistent() ? Which::CONFIGURED : Which::RUNNING));
  hasWayIn(xml);
  auto guest = xml.hasVsock() && !xml.hasChannel()
                   ? kj::str("guest-transport ", toString(Endpoint(VsockEndpoint{CID_HOST, DEFAULT_PORT})), '\n')
                   : kj::String();
  return kj::str("uuid ", xml.uuid(), '\n', guest);
}

kj::String prepare(const Libvirt& libvirt, kj::StringPtr domain, kj::StringPtr bundleFile) {
  return Preparation(libvirt, domain, bundleFile).run();
}

}  // namespace postern::libvirt
