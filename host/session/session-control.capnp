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

  attach @0 (observer :SessionObserver, reports :Control.Descriptor, rollback :Rollback) -> (pid :UInt32, version :Text, vm :Data, state :SessionState, channels :List(LiveChannel));
  # First of all. `channels`: those that an earlier posternd allowed, and those of whose end none has heard: channelClosed()
  # follows for them. `reports` is the sending end of a socket pair for reports (report.h).

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

  serve @7 (flow :Flow, caller :Guest.Caller, service :Text, socket :Control.Descriptor) -> (outcome :ServeOutcome);
  # Another VM's channel comes to a service of this VM's guest: `socket` is this end of a SOCK_SEQPACKET pair
  # (transport/relay/relay-end.h), whose other end the other VM's session gets when this returns `reached`.

  setLimits @8 (port :Limit, rules :List(Limit)) -> ();
  # Numbers of the policy that is in force now: of the VM's port, and of rules. They count for what is open already. A rule
  # that is not named keeps its numbers; one that has no limits any more is named with none.

  cutChannels @9 (ids :List(UInt64)) -> ();
  # Resets those of them that there are.

  channelTraffic @10 () -> (channels :List(ChannelTraffic));
  # What has passed each channel that lives, for who wants to see it. Of one between VMs, each of the two sessions knows.

  retire @11 () -> (agreed :Bool);
  # Ends the process without a goodbye to the guest, which connects again at once, to the next process: unless a caller has
  # a socket, a channel is open or being opened, or posternd has not heard of the end of one.
}

struct ChannelTraffic {
  id @0 :UInt64;
  traffic @1 :Control.Traffic;
}

struct Flow {
  # A channel, for the session process of one VM that it passes.

  id @0 :UInt64;
  # Random, by whoever made the channel: the session of the VM that asked, or that a program of the host asked for.
  rule @1 :Text;
  # That allowed it.
  limit @2 :Limit;
  # Of the rule. `rule` is empty where another session keeps to it: of a channel between VMs, that of the one that asked.
  port @3 :Limit;
  # Of this VM. Null: as was said before.
  mirror @4 :Mirror;
  # Null: none, or the other session's.
}

struct Mirror {
  socket @0 :Control.Descriptor;
  # A stream socket to the appliance; null: it could not be reached, which is counted.
  full @1 :Bool;
  # Bytes as well as records.
  who @2 :Text;
  # "user:alice", "vm:web1", for the records.
  to @3 :Text;
  # "vm:db1", "host"
  terms @4 :Text;
  # "unix:/run/ids.sock full", for LiveChannel.
}

enum ServeOutcome {
  reached @0;
  notConnected @1;
  # No guest is connected.
  denied @2;
  # By the guest's policy.
  notExported @3;
  notReached @4;
  # The target.
  refused @5;
  # A limit of the VM's port.
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
  inherited @9 :Bool;
  # The keys are some that another host had.

  enum Absence {
    neverSeen @0;
    lost @1;
    saidGoodbye @2;
  }
}

struct LiveChannel {
  id @0 :UInt64;
  asked @1 :Bool;
  # By this VM's guest; otherwise it comes to it.
  caller @2 :Guest.Caller;
  # Of a channel that comes to this VM's guest.
  to @3 :Text;
  # Of one that it asked for: a VM or "host".
  service @4 :Text;
  rule @5 :Text;
  openForMilliseconds @6 :UInt64;
  mirror @7 :Text;
  # Its terms; empty: none, or the other session's.
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
  # What the VM's port is limited to; every transfer and channel counts for it. `rule` is empty. Null: as was said before,
  # by another grant, a flow or setLimits().
  auditEach @6 :Bool;
  # A line of the audit for each file of a transfer, beside the one for all of it.
  path @7 :Data;
  # What the file.* calls are for: an order's path has to be this one, since it chose the quotas of the scope.
  services @8 :List(ServiceGrant);
  # One for each service.* call in `calls`; at most 15 of them with a mirror's socket (MAX_TRUSTED_DESCRIPTORS).
}

struct ServiceGrant {
  call @0 :Text;
  rule @1 :Text;
  limit @2 :Limit;
  mirror @3 :Mirror;
  # Null: none. Its socket is used for all channels of the grant.
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
  # Transfers and channels at one time. One more is refused.
  calls @5 :UInt64;
  # Begun in an hour. One more is refused.
  bytes @6 :UInt64;
  # Of channels, that have come in and were not yet taken by the other side. More wait.
  zero @7 :UInt16;
  # A bit for each number above that is a bound of 0, not no bound: 1 rate, 2 burst, 4 peak, 8 open, 16 calls, 32 bytes.
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
  connect @3 (id :UInt64, to :Text, service :Text, entrance :Entrance) -> (allowed :Bool, socket :Control.Descriptor);
  # The guest asks for a channel, which gets this id. What policy allows has to come in by `entrance` before its target is
  # reached. `allowed` when that was: then `socket` is a SOCK_SEQPACKET end (to another session) or, to a service of the host,
  # a stream socket.

  channelOpened @4 (id :UInt64, grant :UInt64, service :Text) -> ();
  # For a program of the host.

  channelRefused @5 (grant :UInt64, service :Text, why :Text, count :UInt32) -> ();
  # It was not opened: for a program of the host, or (grant 0) `count` questions of the guest that were too many.

  channelClosed @6 (id :UInt64, why :Text, microseconds :UInt64, traffic :Control.Traffic) -> ();
  # By the session of the VM that asked, or that was asked for by a program of the host; of one between VMs, by both, and the
  # first one counts. `why`: finished, reset, cut, link-ended.

  traffic @7 (active :UInt32, opened :UInt64, refused :UInt64, outOf :Control.Traffic, mirrorDropped :UInt64, rules :List(Control.RuleTraffic)) -> ();
  # Counters since this process began, of the VM's port and of rules with traffic (at most 256, `vm` empty), whenever they
  # have changed: some times a second, and before channelClosed(). All that are kept, each time; a rule that is not among
  # them any more has made room for another one.

  pings @8 (counts :List(UInt64), nanoseconds :UInt64, failures :UInt64) -> ();
  # Pings of the guest that are over since this was told last (ping-tally.h has the bounds of the buckets), for the metrics.

  interface Entrance {
    # For one question: the limits that the asking VM's session keeps.

    enter @0 (flow :Flow) -> (entered :Bool);
    # Once. Takes the channel's place at each limit, which is given back if connect() does not return `allowed`. False: one of
    # them keeps it out, and has counted it.
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
