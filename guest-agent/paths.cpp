#include "guest-agent/paths.h"

namespace postern::guest {

Paths::Paths(kj::StringPtr root)
    : root(kj::str(root)),
      config(kj::str(root, "/etc/postern/agent.toml")),
      grants(kj::str(root, "/var/lib/postern-agent/grants.toml")),
      hooksFolder(kj::str(root, "/etc/postern/hooks.d")),
      bundle(kj::str(root, "/etc/postern/bundle")),
      stateFile(kj::str(root, "/var/lib/postern-agent/state")),
      lock(kj::str(root, "/run/postern-agent/lock")),
      virtioPort(kj::str(root, "/dev/virtio-ports/org.postern.agent.0")),
      smbiosEntries(kj::str(root, "/sys/firmware/dmi/entries")),
      fwCfgBundle(kj::str(root, "/sys/firmware/qemu_fw_cfg/by_name/opt/org.postern/bundle/raw")),
      productUuid(kj::str(root, "/sys/class/dmi/id/product_uuid")),
      machineId(kj::str(root, "/etc/machine-id")) {}

}  // namespace postern::guest
