@0xf7974b57dfd21890;
# What each end keeps of an enrolled pair, as it lies in a StateFile (state-file.h). Not a message: it never leaves the
# machine. New fields go at the end; a reader that does not know them would lose them at its next write, so it refuses a
# file whose `format` is newer than its own.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("postern::schema");

struct GuestState {
  format @0 :UInt16;
  # 1.

  vm @1 :Data;
  # 16 bytes: the VM's uuid as the bundle had it.

  ownSecretKey @2 :Data;
  # 32 bytes. The public half is derived.

  hostPublicKey @3 :Data;
  # 32 bytes, pinned.

  linkSecret @4 :Data;
  # 32 bytes.

  sessionCounter @5 :UInt64;
  # The last one that was used in a CONFIRM. Written before it is sent.
}

struct HostState {
  format @0 :UInt16;
  # 1.

  vm @1 :Data;
  ownSecretKey @2 :Data;
  guestPublicKey @3 :Data;
  linkSecret @4 :Data;

  sessionCounter @5 :UInt64;
  # The highest that this guest has confirmed.
}
