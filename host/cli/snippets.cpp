#include "host/cli/snippets.h"

namespace postern::cli {

namespace {

constexpr auto FW_CFG_NAME = "opt/org.postern/bundle"_kj;
constexpr auto PORT_NAME = "org.postern.agent.0"_kj;
constexpr auto GUEST_FILE = "/etc/postern/bundle"_kj;

kj::String replaced(kj::StringPtr text, char what, kj::StringPtr with) {
  kj::Vector<char> out;
  for (char c : text) {
    if (c == what) {
      out.addAll(with);
    } else {
      out.add(c);
    }
  }
  return kj::heapString(out);
}

// A word of a POSIX shell.
kj::String shellWord(kj::StringPtr text) {
  for (char c : text) {
    bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '/' || c == '.' ||
                 c == '-' || c == '_' || c == '=' || c == ',' || c == ':' || c == '+' || c == '@';
    if (!plain) return kj::str('\'', replaced(text, '\'', "'\\''"), '\'');
  }
  return kj::str(text);
}

kj::String qemuValue(kj::StringPtr path) {
  return replaced(path, ',', ",,");
}

kj::String xmlValue(kj::StringPtr text) {
  return replaced(replaced(replaced(replaced(text, '&', "&amp;"), '<', "&lt;"), '\'', "&apos;"), '>', "&gt;");
}

// The paths in it are this user's own words, so they stay as they are.
kj::String indented(kj::StringPtr lines) {
  kj::Vector<char> out;
  bool atStart = true;
  for (char c : lines) {
    if (atStart) out.addAll("  "_kj);
    out.add(c);
    atStart = c == '\n';
  }
  return kj::heapString(out);
}

kj::String qemuTransport(const Endpoint& host) {
  if (host.is<SerialEndpoint>()) {
    auto chardev = shellWord(
        kj::str("socket,id=postern0,path=", qemuValue(host.get<SerialEndpoint>().path), ",server=on,wait=off"));
    return kj::str("-device virtio-serial-pci -chardev ", chardev,
                   "\n-device virtserialport,chardev=postern0,id=postern0,name=", PORT_NAME, '\n');
  }
  if (host.is<VsockEndpoint>()) {
    auto cid = host.get<VsockEndpoint>().cid;
    auto shownCid = cid >= 3 && cid != CID_ANY ? kj::str(cid) : kj::str("CID");
    return kj::str("-device vhost-vsock-pci,guest-cid=", shownCid, '\n');
  }
  return kj::str();
}

kj::String libvirtTransport(const Endpoint& host) {
  if (host.is<LibvirtEndpoint>()) {
    return kj::str("<channel type='unix'>  <!-- in <devices> -->\n  <target type='virtio' name='", PORT_NAME,
                   "'/>\n</channel>\n");
  }
  if (host.is<SerialEndpoint>()) {
    return kj::str("<channel type='unix'>  <!-- in <devices> -->\n  <source mode='bind' path='",
                   xmlValue(host.get<SerialEndpoint>().path), "'/>\n  <target type='virtio' name='", PORT_NAME,
                   "'/>\n</channel>\n");
  }
  if (host.is<VsockEndpoint>()) {
    auto cid = host.get<VsockEndpoint>().cid;
    bool fixed = cid >= 3 && cid != CID_ANY;
    return kj::str("<vsock model='virtio'>  <!-- in <devices> -->\n  ",
                   fixed ? kj::str("<cid auto='no' address='", cid, "'/>") : kj::str("<cid auto='yes'/>"),
                   "\n</vsock>\n");
  }
  return kj::str();
}

kj::String firecrackerVsock(const Endpoint& host) {
  if (!host.is<HybridEndpoint>()) return kj::str();
  JsonWriter json;
  json.beginObject().field("guest_cid", 3).field("uds_path", host.get<HybridEndpoint>().path).endObject();
  return kj::str(json.finish(), '\n');
}

kj::String cloudInitCommand(kj::StringPtr bundleFile) {
  return kj::str("(umask 077; { cat; sed 's/^/      /' ", shellWord(bundleFile),
                 "; } > user-data) <<'END'\n#cloud-config\nwrite_files:\n  - path: ", GUEST_FILE,
                 "\n    owner: root:root\n    permissions: '0600'\n    content: |\nEND\n");
}

}  // namespace

kj::String guestEndpointFor(const Endpoint& host) {
  KJ_SWITCH_ONEOF(host) {
    KJ_CASE_ONEOF(endpoint, UnixEndpoint) {
      return toString(host);
    }
    KJ_CASE_ONEOF(endpoint, HybridEndpoint) {
      return kj::str("vsock:host:", endpoint.port);
    }
    KJ_CASE_ONEOF(endpoint, SerialEndpoint) {
      return kj::str();
    }  // the port has a name
    KJ_CASE_ONEOF(endpoint, VsockEndpoint) {
      return kj::str("vsock:host:", endpoint.port);
    }
    KJ_CASE_ONEOF(endpoint, LibvirtEndpoint) {
      return kj::str();
    }
  }
  KJ_UNREACHABLE;
}

Snippets snippetsFor(const Endpoint& host, kj::StringPtr bundleFile) {
  Snippets snippets;
  snippets.firecracker = firecrackerVsock(host);
  if (snippets.firecracker.size() == 0) {
    auto file = qemuValue(bundleFile);
    snippets.qemu = kj::str(qemuTransport(host), "-smbios ", shellWord(kj::str("type=11,path=", file)),
                            "\n  or: -fw_cfg ", shellWord(kj::str("name=", FW_CFG_NAME, ",file=", file)), '\n');
    snippets.libvirt = kj::str(libvirtTransport(host), "<sysinfo type='fwcfg'>\n  <entry name='", FW_CFG_NAME,
                               "' file='", xmlValue(bundleFile), "'/>\n</sysinfo>\n");
  }
  snippets.cloudInit = cloudInitCommand(bundleFile);
  return snippets;
}

kj::String toText(const Snippets& snippets) {
  auto section = [](kj::StringPtr title, kj::StringPtr text) {
    return text.size() == 0 ? kj::str() : kj::str('\n', title, ":\n", indented(text));
  };
  // A shell's here-document ends with a word at the beginning of its line.
  return kj::str(section("QEMU", snippets.qemu), section("libvirt", snippets.libvirt),
                 section("Firecracker, PUT /vsock", snippets.firecracker),
                 "\ncloud-init: this command writes user-data with the bundle in it, for you alone:\n",
                 snippets.cloudInit);
}

void writeSnippets(JsonWriter& json, const Snippets& snippets) {
  json.beginObject().field("qemu", snippets.qemu).field("libvirt", snippets.libvirt);
  json.field("firecracker", snippets.firecracker).field("cloudInit", snippets.cloudInit).endObject();
}

}  // namespace postern::cli
