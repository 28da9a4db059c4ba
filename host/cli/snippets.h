#pragma once
// Ready-made text that delivers a bundle and a transport to a VM: for QEMU, libvirt, Firecracker and cloud-init. It
// names the bundle's file and never holds the bundle, so that it may be shown, pasted and logged, and so that the
// bundle never stands on a command line, where every user of the machine could read it.
//
// Paths are escaped as each reader wants it: QEMU doubles commas, shells have quotes, XML has entities.

#include <kj/string.h>

#include "transport/endpoint.h"
#include "transport/json-writer.h"

namespace postern::cli {

// Where the guest finds the host if that listens or connects there; empty: postern-agent finds it by itself.
kj::String guestEndpointFor(const Endpoint& host);

struct Snippets {
  kj::String qemu;         // options, a line each
  kj::String libvirt;      // elements of the domain's XML
  kj::String firecracker;  // the body of PUT /vsock; empty unless the transport is hybrid:
  kj::String cloudInit;    // a shell command that writes user-data
};

Snippets snippetsFor(const Endpoint& host, kj::StringPtr bundleFile);

// All of them with titles.
kj::String toText(const Snippets& snippets);
void writeSnippets(JsonWriter& json, const Snippets& snippets);

}  // namespace postern::cli
