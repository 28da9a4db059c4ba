#pragma once
// Libvirt: a connection to libvirtd, and what Postern asks of one domain there. Every call blocks; whatever fails
// throws a LibvirtFailure. One thread.

#include <kj/string.h>
#include <libvirt/libvirt.h>

namespace postern::libvirt {

struct LibvirtFailure {
  kj::String text;  // one line for a person
};
// What libvirt said last, after `what`.
[[noreturn]] void failAs(kj::StringPtr what);

class Domain {
 public:
  explicit Domain(virDomainPtr domain) : domain(domain) {}
  Domain(Domain&& other) : domain(other.domain) { other.domain = nullptr; }
  ~Domain() noexcept {
    if (domain != nullptr) virDomainFree(domain);
  }
  KJ_DISALLOW_COPY(Domain);

  kj::String name() const { return kj::str(virDomainGetName(domain)); }
  bool isActive() const;
  bool isPersistent() const;
  int state() const;  // VIR_DOMAIN_RUNNING, ...
  enum class Which { RUNNING, CONFIGURED };
  kj::String xml(Which which) const;

  // Adds a device to the one or the other.
  void attach(kj::StringPtr deviceXml, Which which) const;
  // At once, without the guest.
  void destroy() const;
  void reset() const;

 private:
  virDomainPtr domain;
};

class Libvirt {
 public:
  explicit Libvirt(kj::StringPtr uri);
  ~Libvirt() noexcept { virConnectClose(connection); }
  KJ_DISALLOW_COPY(Libvirt);

  Domain find(kj::StringPtr name) const;
  // Replaces the configuration of the domain that has the same name and UUID.
  void define(kj::StringPtr domainXml) const;
  virConnectPtr get() const { return connection; }

 private:
  virConnectPtr connection;
};

}  // namespace postern::libvirt
