@0xdc1174ec6c8f3f69;
# What the two ends say to each other in the first encrypted records, before any RPC. Handshake messages themselves have
# empty payloads: a version, a feature or a counter must not travel before both ends are authenticated and the key is fresh.
#
# Each is one serialised message (stream framing) in one record of type CONFIRM, without pointers into other segments.
# New fields may be added at the end; a receiver that does not know them ignores them. A field never changes its meaning.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("postern::schema");

struct Confirm {
  # Guest to host, the first record of a session. When it has decrypted, the host knows that the guest has the keys and is
  # live; before that the host has sent no record and started nothing.

  version @0 :UInt8;
  # The protocol version that the guest derives from both HELLOs. The host derives the same or ends the session.

  features @1 :UInt64;
  # A bit each; docs/PROTOCOL.md has the list. Unknown bits are ignored.

  sessionCounter @2 :UInt64;
  # Grows with every session of this identity and is on the guest's disk before it is sent. One that does not grow says that the
  # guest was rolled back to a snapshot (event `rollback`; policy decides).

  bootIdHigh @3 :UInt64;
  bootIdLow @4 :UInt64;
  # The guest kernel's boot id (/proc/sys/kernel/random/boot_id), to tell a restarted agent from a restarted guest.

  agentInstanceHigh @5 :UInt64;
  agentInstanceLow @6 :UInt64;
  # Random, new with each start of the agent: tells one agent that reconnects from two agents with one identity.

  purpose :union {
    primary @7 :Void;
    # The VM's main session: heartbeat and RPC. Replaces an earlier one.

    bulk :group {
      # One more connection for a large transfer; carries nothing but that transfer's BULK records.
      transfer @8 :UInt64;
      ticketHigh @9 :UInt64;
      ticketLow @10 :UInt64;
      # 128 bits, given over the primary, good for one connection.
    }
  }
}

struct Accept {
  # Host to guest, the answer to Confirm. After it RPC may flow both ways (enrolment: after COMMITTED).

  version @0 :UInt8;
  features @1 :UInt64;
  # Those of the guest's that the host has too.

  linkSecret :union {
    none @2 :Void;
    given :group {
      # Enrolment only: the psk of all later sessions, 256 bits. Integers rather than Data, so that it lies at one known
      # place of the message and can be wiped there.
      a @3 :UInt64;
      b @4 :UInt64;
      c @5 :UInt64;
      d @6 :UInt64;
    }
  }
}
