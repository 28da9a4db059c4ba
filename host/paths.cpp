#include "host/paths.h"

namespace postern::host {

Paths::Paths(kj::StringPtr root)
    : config(kj::str(root, "/etc/postern/postern.toml")),
      policyFolder(kj::str(root, "/etc/postern/policy.d")),
      grantsFolder(kj::str(root, "/var/lib/postern/grants.d")),
      vmFolder(kj::str(root, "/var/lib/postern/vms")),
      transferKey(kj::str(root, "/var/lib/postern/transfer.key")),
      auditLog(kj::str(root, "/var/log/postern/audit.log")),
      controlSocket(kj::str(root, "/run/postern/control.sock")),
      board(kj::str(root, "/run/postern/board")),
      sessionFolder(kj::str(root, "/run/postern/sessions")),
      libvirtSocket(kj::str(root, "/run/postern/libvirt.sock")),
      bundleFolder(kj::str(root, "/var/lib/postern-bundles")),
      lock(kj::str(root, "/run/postern/posternd.lock")) {}

}  // namespace postern::host
