@0xd5c3b0a1c0f9e7d4;
# As much of QMP's JSON as a monitor conversation has, for Cap'n Proto's codec. Numbers are 32 bits wide: of wider ones the
# codec makes texts.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("postern::libvirt::schema");

struct Command {
  execute @0 :Text;
  id @1 :UInt32;
}

struct Refusal {
  id @0 :UInt32;
  error @1 :Error;
  struct Error {
    class @0 :Text;
    desc @1 :Text;
  }
}

struct PortChange {
  # The data of VSERPORT_CHANGE.
  id @0 :Text;
  open @1 :Bool;
}
