#pragma once
// Where the guest's files are. `--root DIR` puts every default below DIR, so that an agent of one's own needs no root.

#include <kj/string.h>

namespace postern::guest {

struct Paths {
  // `root` is absolute, without a trailing slash; empty for the machine itself.
  explicit Paths(kj::StringPtr root);

  kj::String root;
  kj::String config;         // /etc/postern/agent.toml: settings ([agent]) and policy of the guest's administrator
  kj::String grants;         // /var/lib/postern-agent/grants.toml: adopted from a bundle; counts only without `config`
  kj::String hooksFolder;    // /etc/postern/hooks.d
  kj::String bundle;         // /etc/postern/bundle
  kj::String stateFile;      // /var/lib/postern-agent/state (protocol/identity.h), 0600, the agent's user's
  kj::String lock;           // /run/postern-agent/lock: held by the living broker
  kj::String virtioPort;     // /dev/virtio-ports/org.postern.agent.0
  kj::String smbiosEntries;  // /sys/firmware/dmi/entries
  kj::String fwCfgBundle;    // /sys/firmware/qemu_fw_cfg/by_name/opt/org.postern/bundle/raw
  kj::String productUuid;    // /sys/class/dmi/id/product_uuid
  kj::String machineId;      // /etc/machine-id
};

}  // namespace postern::guest
