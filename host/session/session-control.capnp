@0x825dfa092aedb913;
# What posternd and a VM's session process say to each other, over the session's own socket. The session process speaks with
# a guest that may be hostile, so posternd takes what comes from it for a claim about that one VM, bounded and checked.

using Cxx = import "/capnp/c++.capnp";
using Guest = import "/protocol/guest.capnp";
using Control = import "/host/control/control.capnp";
using Transfer = import "/protocol/transfer.capnp";
$Cxx.namespace("postern::host::schema");

interface SessionControl {
  # Bootstrap of the session's socket. The newest connection is the one that counts.

  attach @0 (observer :SessionObserver, reports :Control.Descriptor, rollback :Rollback) -> (pid :UInt32, version :Text, vm :Data, state :SessionState);
  # First of all. `reports` is the sending end of a socket pair for reports (report.h).

  link @1 (socket :Control.Descriptor, transport :UInt8, descriptorKind :UInt8, peer :Text) -> (outcome :LinkOutcome);
  # A connection of this VM's channel, unread. Returns when the guest on it has proved itself or has been closed; serial:
  # when the pipe has ended.

  introduce @2 (socket :Control.Descriptor, grant :Grant) -> ();
  # A caller's socket. It lives until either end closes it; posternd may shut it down.

  stop @3 () -> ();
  # Says goodbye to the guest and ends the process.

  whenSerialFree @4 () -> ();
  # When no pipe is in use that link() brought, be it from an earlier posternd: a VMM's socket serves one connection, and
  # another would end the guest's session.

  configure @5 (rollback :Rollback) -> ();
  # After a change of what attach() said.

  alive @6 () -> ();
  # Answered at once by a process whose loop turns.
}

enum Rollback {
  allow @0;
  deny @1;
}

struct SessionState {
  enrolled @0 :Bool;
  offerPending @1 :Bool;
  hostFingerprint @2 :Text;
  guestFingerprint @3 :Text;
  connected @4 :Bool;
  peer @5 :Text;
  sessions @6 :UInt64;
  absence @7 :Absence;
  # If not connected: how the last guest went.
  goodbye @8 :UInt16;
  # saidGoodbye: guest.capnp's Goodbye.

  enum Absence {
    neverSeen @0;
    lost @1;
    saidGoodbye @2;
  }
}

struct LinkOutcome {
  proved @0 :Bool;
  # A guest of this VM: its attempt costs nothing.
  reason @1 :Text;
  # If not, or for serial, why it ended. Printable, at most 256 bytes.
}

struct Grant {
  id @0 :UInt64;
  calls @1 :List(Text);
  caller @2 :Guest.Caller;
  rule @3 :Text;
  files @4 :List(FileGrant);
  # One for each file.* call in `calls`.
  port @5 :Limit;
  # What the VM's port is limited to; every transfer counts for it. `rule` is empty.
  auditEach @6 :Bool;
  # A line of the audit for each file of a transfer, beside the one for all of it.
  path @7 :Data;
  # What the file.* calls are for: an order's path has to be this one, since it chose the quotas of the scope.
}

struct FileGrant {
  call @0 :Text;
  scope @1 :Transfer.PathScope;
  # Each path is decided by it, of a tree each entry's.
  limits @2 :List(Limit);
  # Of those rules of the scope that have any. An entry is paced by the rule that decides it.
}

struct Limit {
  # All that pass it share it, in this VM. 0: none.

  rule @0 :Text;
  rate @1 :UInt64;
  # Bytes of content a second, in the long run.
  burst @2 :UInt64;
  # Bytes that may go at once after a pause; 0 with a rate: a tenth of a second's.
  peak @3 :UInt64;
  # Bytes a second while a burst lasts.
  open @4 :UInt64;
  # Transfers at one time.
}

interface SessionObserver {
  # posternd, for the session.

  stateChanged @0 (state :SessionState) -> ();
  event @1 (kind :Kind, text :Text, code :UInt16, session :UInt64) -> ();
  # `code`: goodbye: guest.capnp's Goodbye; lost: Loss; refused: Refused. `session`: the number of the guest's session.

  operation @2 (grant :UInt64, call :Text, outcome :Text, microseconds :UInt64, bytes :UInt64, files :FileOutcome) -> ();
  # For the audit log, when an operation is over. `files` is null unless it is a file.* call; `bytes` are then those of whole files,
  # as they are at the destination.

  struct FileOutcome {
    path @0 :Data;
    # As it was ordered, at most 4095 bytes.
    entry @1 :Data;
    # If this is about a single file of the operation, which goes on: its path. Empty: about all of it.
    files @2 :UInt64;
    directories @3 :UInt64;
    sentBytes @4 :UInt64;
    # Of content, over the link.
    failures @5 :UInt64;
    unchanged @6 :UInt64;
    # Files that were there already.
    leftOut @7 :UInt64;
    # Files that should have had a line of their own, and were too many.
    hash @8 :Data;
    # Of a single file that was verified: BLAKE2b-256.
  }
  enum Kind {
    connected @0;
    lost @1;
    goodbye @2;
    booted @3;
    rollback @4;
    tokenReuse @5;
    duplicateIdentity @6;
    enrolled @7;
    refused @8;
    power @9;
    trouble @10;
    # Of this process: disk full, and the like.
  }
  enum Loss {
    cut @0;
    protocolError @1;
  }
  enum Refused {
    other @0;
    keys @1;
    clonedIdentity @2;
    rolledBack @3;
  }
}
