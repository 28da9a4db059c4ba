#pragma once
// DomainXml: what Postern reads in a domain's XML, and the one thing that it writes there. libvirt made the text and
// checks what comes back.

#include <kj/common.h>
#include <kj/string.h>
#include <libxml/tree.h>
#include <stdint.h>

namespace postern::libvirt {

class DomainXml {
 public:
  // Throws a LibvirtFailure if it is no XML.
  explicit DomainXml(kj::StringPtr text);
  explicit DomainXml(xmlDocPtr document) : document(document) {}  // takes it over
  ~DomainXml() noexcept { xmlFreeDoc(document); }
  KJ_DISALLOW_COPY(DomainXml);

  kj::String uuid() const;

  // The channel to org.postern.agent.0.
  bool hasChannel() const;
  kj::String channelType() const;              // "unix", if it is of any use
  kj::Maybe<kj::String> channelPath() const;   // of a domain that runs, or where a person has named it
  kj::Maybe<kj::String> channelAlias() const;  // what QEMU calls it, while it runs

  bool hasVsock() const;
  kj::Maybe<uint32_t> guestCid() const;  // while it runs, or where it is fixed

  // The whole text, with `file` as fw_cfg's opt/org.postern/bundle, in place of one that is there.
  kj::String withBundle(kj::StringPtr file) const;

 private:
  xmlDocPtr document;

  xmlNodePtr first(const char* path) const;
  kj::Maybe<kj::String> text(const char* path) const;
};

// The device that a domain without a channel gets. libvirt chooses where its socket is.
kj::StringPtr channelDevice();

}  // namespace postern::libvirt
