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
  # 32 bytes, pinned. Empty before ACCEPT of an enrolment whose bundle names no key.

  linkSecret @4 :Data;
  # 32 bytes; empty before ACCEPT.

  sessionCounter @5 :UInt64;
  # The last one that was used in a CONFIRM. Written before it is sent.

  token @6 :Data;
  # 32 bytes until the enrolment is committed, then empty.

  machine @7 :Data;
  # 32 bytes: which machine this identity was made on (guest-agent/identity/machine.h).

  grantsAdopted @8 :Bool;
  # The bundle's grants were taken over, or turned down, once.
}

struct HostState {
  format @0 :UInt16;
  # 1.

  vm @1 :Data;
  # 16 bytes, as the registry has it.

  current @2 :Pair;
  # Null before the first enrolment.

  offer @3 :Offer;
  # A token that is out. Null when there is none.

  struct Pair {
    ownSecretKey @0 :Data;
    guestPublicKey @1 :Data;
    linkSecret @2 :Data;
    sessionCounter @3 :UInt64;
    # The highest that this guest has confirmed.
    inherited @4 :Bool;
    # Another host had these keys before, and may have a copy: they are replaced when the guest is next here.
  }

  struct Offer {
    ownSecretKey @0 :Data;
    token @1 :Data;
    issuedAt @2 :UInt64;
    # Seconds since 1970 by this host's clock.
    lifetimeSeconds @3 :UInt32;
    guestPublicKey @4 :Data;
    # The key that has used the token, after which no other may. Empty before.
    linkSecret @5 :Data;
    # Drawn once per token, and on disk before ACCEPT brings it to the guest. Empty before.
  }
}
