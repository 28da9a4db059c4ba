#include "host/libvirt/helper/domain-xml.h"

#include <libxml/parser.h>
#include <libxml/xpath.h>
#include <stdlib.h>

#include "host/libvirt/helper/libvirt.h"

namespace postern::libvirt {

namespace {

#define POSTERN_CHANNEL "/domain/devices/channel[target/@name='org.postern.agent.0']"
#define POSTERN_ENTRY "/domain/sysinfo[@type='fwcfg']/entry[@name='opt/org.postern/bundle']"

const xmlChar* xml(const char* text) {
  return reinterpret_cast<const xmlChar*>(text);
}

}  // namespace

kj::StringPtr channelDevice() {
  return "<channel type='unix'><target type='virtio' name='org.postern.agent.0'/></channel>"_kj;
}

DomainXml::DomainXml(kj::StringPtr text)
    : document(xmlReadMemory(text.begin(), static_cast<int>(text.size()), "domain.xml", nullptr, XML_PARSE_NONET)) {
  if (document == nullptr) throw LibvirtFailure{kj::str("libvirt gave no XML for the domain")};
}

// Null: there is none.
xmlNodePtr DomainXml::first(const char* path) const {
  auto* context = xmlXPathNewContext(document);
  KJ_DEFER(xmlXPathFreeContext(context));
  auto* found = xmlXPathEvalExpression(xml(path), context);
  if (found == nullptr) return nullptr;
  KJ_DEFER(xmlXPathFreeObject(found));
  return xmlXPathNodeSetIsEmpty(found->nodesetval) ? nullptr : found->nodesetval->nodeTab[0];
}

kj::Maybe<kj::String> DomainXml::text(const char* path) const {
  auto* node = first(path);
  if (node == nullptr) return nullptr;
  auto* content = xmlNodeGetContent(node);
  KJ_DEFER(xmlFree(content));
  return kj::str(reinterpret_cast<const char*>(content));
}

kj::String DomainXml::uuid() const {
  return text("/domain/uuid").orDefault([] { return kj::String(); });
}

bool DomainXml::hasChannel() const {
  return first(POSTERN_CHANNEL) != nullptr;
}

kj::String DomainXml::channelType() const {
  return text(POSTERN_CHANNEL "/@type").orDefault([] { return kj::String(); });
}

kj::Maybe<kj::String> DomainXml::channelPath() const {
  return text(POSTERN_CHANNEL "/source/@path");
}

kj::Maybe<kj::String> DomainXml::channelAlias() const {
  return text(POSTERN_CHANNEL "/alias/@name");
}

bool DomainXml::hasVsock() const {
  return first("/domain/devices/vsock") != nullptr;
}

kj::Maybe<uint32_t> DomainXml::guestCid() const {
  return text("/domain/devices/vsock/cid/@address").map([](const kj::String& address) {
    return static_cast<uint32_t>(strtoul(address.cStr(), nullptr, 10));
  });
}

kj::String DomainXml::withBundle(kj::StringPtr file) const {
  auto* copy = xmlCopyDoc(document, 1);
  DomainXml edited(copy);
  auto* entry = edited.first(POSTERN_ENTRY);
  if (entry == nullptr) {
    auto* sysinfo = edited.first("/domain/sysinfo[@type='fwcfg']");
    if (sysinfo == nullptr) {
      sysinfo = xmlNewChild(xmlDocGetRootElement(copy), nullptr, xml("sysinfo"), nullptr);
      xmlNewProp(sysinfo, xml("type"), xml("fwcfg"));
    }
    entry = xmlNewChild(sysinfo, nullptr, xml("entry"), nullptr);
    xmlNewProp(entry, xml("name"), xml("opt/org.postern/bundle"));
  }
  xmlSetProp(entry, xml("file"), xml(file.cStr()));
  xmlChar* out = nullptr;
  int size = 0;
  xmlDocDumpMemory(copy, &out, &size);
  KJ_DEFER(xmlFree(out));
  return kj::heapString(reinterpret_cast<const char*>(out), static_cast<size_t>(size));
}

}  // namespace postern::libvirt
