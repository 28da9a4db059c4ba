@0xa1d7c40c6e5b9f23;
# A VM on its way to another host. Sealed, as payload of a Noise message (vm-export.h): it is read by that host alone.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("postern::host::schema");

struct VmExport {
  format @0 :UInt16;
  # 1. Fields that a reader of this format may leave out go at the end.

  uuid @1 :Data;
  name @2 :Text;
  number @3 :UInt64;
  # Of all moves of this VM, each has a greater one than those before it.

  tags @4 :List(Text);
  blocked @5 :Bool;
  # Its port, by hand.

  state @6 :Data;
  # identity.capnp's HostState, with the current pair and nothing else.

  hostGrants @7 :Text;
  guestGrants @8 :Text;
  # What `enroll --grant` has written: the host's half and the guest's.
}
