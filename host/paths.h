#pragma once
// Where the host's files are. `--root DIR` puts every default below DIR, so that a posternd of one's own needs no root.

#include <kj/string.h>

namespace postern::host {

struct Paths {
  // `root` is absolute, without a trailing slash; empty for the machine itself.
  explicit Paths(kj::StringPtr root);

  kj::String config;         // /etc/postern/postern.toml
  kj::String policyFolder;   // /etc/postern/policy.d: *.toml, root's
  kj::String grantsFolder;   // /var/lib/postern/grants.d: *.toml, written by `enroll --grant`, posternd's
  kj::String vmFolder;       // /var/lib/postern/vms: NAME.toml (registry.h), NAME.state (protocol/identity.h), 0700
  kj::String transferKey;    // /var/lib/postern/transfer.key: this host's (move/transfer-key.h)
  kj::String auditLog;       // /var/log/postern/audit.log
  kj::String controlSocket;  // /run/postern/control.sock, 0660
  kj::String board;          // /run/postern/board, 0640 (board/layout.h)
  kj::String sessionFolder;  // /run/postern/sessions: NAME.sock, 0700
  kj::String libvirtSocket;  // /run/postern/libvirt.sock: postern-libvirt's, where it runs (libvirt/door.h)
  kj::String bundleFolder;   // /var/lib/postern-bundles: NAME.bundle of libvirt's domains, 0711, since QEMU reads them
  kj::String lock;           // /run/postern/posternd.lock: held by the living posternd
};

}  // namespace postern::host
