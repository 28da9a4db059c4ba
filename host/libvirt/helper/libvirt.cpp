#include "host/libvirt/helper/libvirt.h"

#include <libvirt/virterror.h>
#include <stdlib.h>

#include "transport/printable.h"

namespace postern::libvirt {

namespace {

constexpr size_t MAX_FAILURE_BYTES = 300;
// A libvirtd that does not answer for so long is as good as none.
constexpr int KEEPALIVE_SECONDS = 5;
constexpr unsigned KEEPALIVES = 3;

unsigned flagOf(Domain::Which which) {
  return which == Domain::Which::RUNNING ? unsigned(VIR_DOMAIN_AFFECT_LIVE) : unsigned(VIR_DOMAIN_AFFECT_CONFIG);
}

void check(int result, kj::StringPtr what) {
  if (result < 0) failAs(what);
}

}  // namespace

void failAs(kj::StringPtr what) {
  auto* error = virGetLastError();
  kj::StringPtr why = error != nullptr && error->message != nullptr ? error->message : "unknown error";
  throw LibvirtFailure{kj::str(what, ": ", printable(why, MAX_FAILURE_BYTES))};
}

bool Domain::isActive() const {
  int active = virDomainIsActive(domain);
  check(active, "libvirt does not say whether the domain runs");
  return active == 1;
}

bool Domain::isPersistent() const {
  int persistent = virDomainIsPersistent(domain);
  check(persistent, "libvirt does not say whether the domain is persistent");
  return persistent == 1;
}

int Domain::state() const {
  int state = VIR_DOMAIN_NOSTATE;
  check(virDomainGetState(domain, &state, nullptr, 0), "libvirt does not say how the domain is");
  return state;
}

kj::String Domain::xml(Which which) const {
  unsigned flags = VIR_DOMAIN_XML_SECURE;
  if (which == Which::CONFIGURED) flags |= VIR_DOMAIN_XML_INACTIVE;
  char* text = virDomainGetXMLDesc(domain, flags);
  if (text == nullptr) failAs("libvirt does not give the domain's XML");
  KJ_DEFER(free(text));
  return kj::str(text);
}

void Domain::attach(kj::StringPtr deviceXml, Which which) const {
  check(virDomainAttachDeviceFlags(domain, deviceXml.cStr(), flagOf(which)), "libvirt does not add the device");
}

void Domain::destroy() const {
  check(virDomainDestroy(domain), "libvirt does not end the domain");
}

void Domain::reset() const {
  check(virDomainReset(domain, 0), "libvirt does not reset the domain");
}

Libvirt::Libvirt(kj::StringPtr uri) {
  // Errors are told where they are caught, not on standard error.
  virSetErrorFunc(nullptr, [](void*, virErrorPtr) {});
  virEventRegisterDefaultImpl();
  connection = virConnectOpen(uri.cStr());
  if (connection == nullptr) failAs(kj::str("cannot connect to libvirt (", uri, ")"));
  virConnectSetKeepAlive(connection, KEEPALIVE_SECONDS, KEEPALIVES);
}

Domain Libvirt::find(kj::StringPtr name) const {
  auto* found = virDomainLookupByName(connection, name.cStr());
  if (found == nullptr && virGetLastErrorCode() == VIR_ERR_NO_DOMAIN) {
    throw LibvirtFailure{kj::str("libvirt has no domain ", name, "; `virsh list --all` shows those it has")};
  }
  if (found == nullptr) failAs(kj::str("libvirt finds no domain ", name));
  return Domain(found);
}

void Libvirt::define(kj::StringPtr domainXml) const {
  auto* defined = virDomainDefineXML(connection, domainXml.cStr());
  if (defined == nullptr) failAs("libvirt does not take the domain's new XML");
  virDomainFree(defined);
}

}  // namespace postern::libvirt
