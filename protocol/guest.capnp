@0xb9d1d0f3c4a86e21;
# What an enrolled guest and its host say to each other over a session, once it is established. The agent's bootstrap is
# Guest, the host's is Host.
#
# Two locks: the host calls Guest only for a caller whom its own policy allows, and the guest decides again by its own
# policy, for the caller that the host vouches for. What a program must branch on is in these structs; exceptions that
# cross the link say nothing but their type.
#
# Text from a peer is bounded where it is read and made printable where it is shown. Times are
# durations: the two clocks have nothing to do with each other.

using Cxx = import "/capnp/c++.capnp";
using Transfer = import "/protocol/transfer.capnp";
$Cxx.namespace("postern::schema");

struct Caller {
  # Who on the host asks. The guest has nothing but the host's word for it.

  union {
    user :group {
      name @0 :Text;
      # The host's user name; empty if the uid has none there.
      uid @1 :UInt32;
      groups @2 :List(Text);
      # At most 64.
    }
    vm @3 :Text;
    # Another VM, by the name that the host has for it.
  }
}

struct Refusal {
  # Why an operation was not done. Nothing was done, unless the reason says otherwise.

  reason @0 :Reason;
  detail @1 :Text;
  # For a person, at most 1 KiB. Of a guest's denial: that no rule allows it or which denies it.
  rule @2 :Text;
  # Denied: the id of the rule that denied, or empty.
  suggestion @3 :Text;
  # Denied: what to write into the policy that refused, to allow it.

  enum Reason {
    denied @0;
    unsupported @1;
    # This end cannot do it: not on this system, or not in this version.
    invalid @2;
    # The request makes no sense.
    busy @3;
    # Another one is under way, and this is not it.
    tooLate @4;
    # The caller's deadline has passed, or the caller has gone.
    failed @5;
    # It was tried; the detail says how far it got.
    inhibited @6;
    # A program of the guest holds an inhibitor lock; the detail names it.
  }
}

interface Guest {
  # The agent, for the host's session process.

  callsFor @0 (caller :Caller) -> (calls :GuestCalls);
  # The operations, for one caller. Dropping the capability cancels what is under way for it, but for connections that
  # are open: the host resets their channels, or lets them come to their end. Never refuses: each call is decided when it
  # is made.

  rekey @1 (hostPublicKey :Data, token :Data) -> (refusal :Refusal);
  # The host wants new keys on both ends: 32 bytes each, as a bundle for this VM has them. Returns when the guest has made
  # its own and stored them; then it ends this session and enrols with them. Until it has, the old ones count. Refusals:
  # `invalid`; `busy`: another rekeying is being finished; `failed`: it could not store them.
}

interface GuestCalls {
  ping @0 () -> (refusal :Refusal);
  # Through the agent's event loop and back, and nothing else. `refusal` is null if it was allowed, here and below.

  info @1 (what :UInt32) -> (info :Info, refusal :Refusal);
  # `what` is a sum of the bits of info.* calls: 1 os, 2 network, 4 filesystems, 8 users. Parts that policy refuses are
  # marked in the answer; `refusal` is set when it refuses all of them. Each probe has a deadline of its own.

  power @2 (request :PowerRequest, observer :PowerObserver) -> (operation :UInt64, refusal :Refusal);
  # Returns when the request is accepted. What follows comes to the observer.

  file @3 (order :Transfer.FileOrder, channel :UInt32, credit :UInt32) -> (refusal :Refusal, problem :Transfer.Problem);
  # get, put, list, stat: returns when the guest's opener runs; what follows travels over the bulk channel that the host has
  # opened and offers here (protocol/transfer.capnp), and the channel's end ends it. mkdir, remove: without a channel (0);
  # returns when it is done, or with the problem.

  connect @4 (service :Text, channel :UInt32, credit :UInt32) -> (refusal :Refusal);
  # One connection to a service of the guest, for this caller. Returns when its target was reached; the bytes travel over the
  # bulk channel that the host has opened and offers here, which is reset if it was not. Decided by the guest's policy as
  # `service.NAME`. A name that the guest does not export is `unsupported`, a target that does not answer `failed`.

  services @5 () -> (services :List(Text), refusal :Refusal);
  # The names of the services that this guest exports and its policy grants to this caller; at most 256, sorted.
}

struct Info {
  os @0 :Part(Os);
  network @1 :Part(List(Interface));
  filesystems @2 :Part(List(FileSystem));
  users @3 :Part(List(User));

  agentVersion @4 :Text;
  features @5 :List(Text);
  # What this agent can do, such as "power.suspend".

  struct Part(T) {
    # A probe's result: one of the four.
    union {
      absent @0 :Void;
      # Not asked for.
      value @1 :T;
      timedOut @2 :UInt32;
      # Milliseconds waited, for a probe that hangs, such as on a dead network file system.
      refused @3 :Refusal;
    }
  }

  struct Os {
    name @0 :Text;
    # PRETTY_NAME of os-release.
    id @1 :Text;
    versionId @2 :Text;
    kernel @3 :Text;
    architecture @4 :Text;
    hostName @5 :Text;
    bootedSecondsAgo @6 :UInt64;
    bootId @7 :Text;
    machineId @8 :Text;
    # A hash of the guest's machine-id, so that it identifies the guest to nobody else.
    timeZone @9 :Text;
  }
  struct Interface {
    name @0 :Text;
    mac @1 :Text;
    up @2 :Bool;
    addresses @3 :List(Text);
    # With prefix length: "192.0.2.7/24", "fe80::1/64".
  }
  struct FileSystem {
    mountPoint @0 :Text;
    type @1 :Text;
    source @2 :Text;
    totalBytes @3 :UInt64;
    availableBytes @4 :UInt64;
    # For an unprivileged user.
    stalled @5 :Bool;
    # It did not answer; the two sizes are unknown.
  }
  struct User {
    name @0 :Text;
    line @1 :Text;
    # The terminal or the seat.
    host @2 :Text;
    loggedInSecondsAgo @3 :UInt64;
  }
}

struct PowerRequest {
  action @0 :Action;
  idHigh @1 :UInt64;
  idLow @2 :UInt64;
  # 128 random bits of the caller's. The same request runs once, however often it is sent: a repetition reports the first.
  delaySeconds @3 :UInt32;
  # At most 86,400; counted after hooks have run.
  message @4 :Text;
  # To the guest's users, at most 512 bytes.
  deadlineMilliseconds @5 :UInt64;
  # How long the caller waits for "stopping", the delay included.
  ignoreInhibitors @6 :Bool;

  enum Action {
    shutdown @0;
    restart @1;
    suspend @2;
  }
}

interface PowerObserver {
  # The caller, for the agent. A caller that is gone is found out by calling it.

  proceed @0 () -> (proceed :Bool);
  # Asked before the hooks and again immediately before the point of no return. False, a failure or no answer within 5 s: the
  # request is not carried out. So a request that lay in a paused guest's queue while its caller went away does nothing.

  progress @1 (step :PowerStep);
}

struct PowerStep {
  union {
    hook @0 :Text;
    # Name of the hook that runs now.
    waiting @1 :UInt32;
    # Seconds of the delay that are left.
    stopping @2 :Void;
    # The system's shutdown has been started. What follows is a goodbye() and silence.
    refused @3 :Refusal;
    # It ends here, and the guest goes on running.
  }
}

interface Host {
  # The host's session process, for the agent.

  heartbeat @0 Heartbeat -> (intervalMilliseconds :UInt32);
  # Once per interval. The answer is the interval that the host wants from now on: 200 to 60,000.

  goodbye @1 (why :Goodbye);
  # The agent stops, on purpose. Nothing follows but the end of the session.

  connect @2 (to :Text, service :Text, channel :UInt32, credit :UInt32) -> (refusal :Refusal);
  # One connection to a service of another VM, by the name that the host has for it, or of the host itself ("host").
  # Returns when its target was reached; the bytes travel over the bulk channel that the guest has opened and offers here.
  #
  # Every refusal is the same, byte by byte, and comes a fixed time after the question (or a multiple of it): unknown VM,
  # denied, off, not exported, a target that is down and too many questions do not tell themselves apart. Its reason is
  # `denied` and it says nothing else.
}

enum Goodbye {
  agentStopped @0;
  shutdown @1;
  restart @2;
  suspend @3;
}

struct Heartbeat {
  # Pushed by the guest. Every number is the guest's word and is bounded where it is read.

  sequence @0 :UInt64;
  # From 1, per start of the agent.
  intervalMilliseconds @1 :UInt32;
  bootIdHigh @2 :UInt64;
  bootIdLow @3 :UInt64;
  uptimeMilliseconds @4 :UInt64;
  # Of the guest.
  agentUptimeMilliseconds @5 :UInt64;
  loopLagMicroseconds @6 :UInt32;
  # How much later than asked for the agent's loop ran this heartbeat.
  load1 @7 :UInt32;
  load5 @8 :UInt32;
  load15 @9 :UInt32;
  # Times 100.
  memoryTotalKiB @10 :UInt64;
  memoryAvailableKiB @11 :UInt64;
  state @12 :State;
  policyHash @13 :Data;
  # 32 bytes: what decides in this guest (docs/POLICY.md).
  agentVersion @14 :Text;
  # At most 32 bytes.

  enum State {
    running @0;
    stopping @1;
    frozen @2;
    resumed @3;
    # The guest's clock jumped since the last heartbeat: it was suspended, or paused and told so.
  }
}
