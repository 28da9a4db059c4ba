@0xbb1585a7646e84c1;
# What a guest is given to enrol with, inside a bundle (bundle.h). Secret until it is used or its lifetime is over.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("postern::schema");

struct Bundle {
  format @0 :UInt16;
  # 1. A reader refuses a later one.

  vm @1 :Data;
  # 16 bytes: the VM's uuid.
  vmName @2 :Text;
  # As the host calls it, for logs.At most 64 bytes.
  hostPublicKey @3 :Data;
  # 32 bytes.
  token @4 :Data;
  # 32 bytes.
  transport @5 :Text;
  # Where the guest finds the host, as an endpoint from the guest's side; empty: let the agent find it.
  grants @6 :Text;
  # Policy in agent.toml's grammar that a guest without policy of its own may adopt; empty: none. At most 2 KiB.
  lifetimeSeconds @7 :UInt32;
  # For a person. The host alone judges it.
}
