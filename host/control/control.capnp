@0xa62a237ea0237850;
# What a program on the host asks of Postern: Control, on posternd's socket, and VmCalls, on a socket straight to one VM's
# session process that Control gives out.
#
# Who asks is known by SO_PEERCRED and nothing else. Every call is decided by policy for that user; a VM for which the
# caller may do nothing looks like a VM that does not exist.

using Cxx = import "/capnp/c++.capnp";
using Guest = import "/protocol/guest.capnp";
using Transfer = import "/protocol/transfer.capnp";
$Cxx.namespace("postern::host::schema");

struct Failure {
  # Why a request was not carried out. Null where a result has one: it was.

  kind @0 :Kind;
  text @1 :Text;
  # One line for a person: what, on what, what to do.
  rule @2 :Text;
  # denied: the rule that denies; empty: no rule allows it.
  suggestion @3 :Text;
  # denied: what to write, into the policy of the lock that refused, to allow it.
  lock @4 :Lock;

  enum Kind {
    failed @0;
    # Exit status 1.
    invalid @1;
    # 2: also an unknown VM.
    denied @2;
    # 3
    notConnected @3;
    # 4
    timedOut @4;
    # 5
    refused @5;
    # 6: the other end refused, or cannot do it.
    lapsed @6;
    # 1: the posternd that granted it has gone. open() asks the one that runs.
  }
  enum Lock {
    host @0;
    guest @1;
  }
}

interface Descriptor {}
# Carries a file descriptor beside it.

interface Control {
  # Bootstrap of /run/postern/control.sock.

  open @0 (vm :Text, calls :List(Text), path :Data) -> (socket :Descriptor, granted :List(Text), failure :Failure, special :Bool);
  # A socket to the VM's session, whose bootstrap is VmCalls, good for those of the calls that policy grants; fails when it
  # grants none of them. Revoked by cutting it: then it ends. `path` goes with file.* calls, and with those alone: policy is asked
  # for it and, with get, put and list, for what lies below it. `special`: with file.get, policy lets set-id and sticky bits, devices
  # and security attributes come out of the guest; otherwise the caller's opener does not make any.

  listVms @1 () -> (vms :List(Vm));
  # Those that the caller may see.

  showVm @2 (name :Text) -> (vm :Vm, failure :Failure, guestPolicy :Text);
  # `guestPolicy`: what addVm gave for the bundle, for the next one; to callers with admin.rekey, as long as the host's
  # half is in force.

  addVm @3 (vm :VmSettings, grants :List(Text), to :List(Text)) -> (failure :Failure, grantFile :Text, grantText :Text, guestPolicy :Text);
  # Registers a VM, makes its keys in a new session process, listens or connects. `grants` in the words of `enroll --grant`;
  # `to`: principals, empty: the caller. What was written as policy comes back, and `guestPolicy` for the bundle.
  # Needs admin.enroll. The bundle is made by VmCalls.issueBundle.

  setVm @4 (vm :VmSettings) -> (failure :Failure);
  # Changes transport, CID, tags or QMP socket of a VM. Empty fields stay. Needs admin.enroll.

  removeVm @5 (name :Text) -> (failure :Failure, removedGrants :Text);
  # Ends its session and link, forgets its keys and the policy that addVm wrote for it. Needs admin.remove.

  status @6 (vms :List(Text)) -> (vms :List(VmStatus));
  # The same as on the status board, for callers who may not read the board. Empty list: all.

  events @7 (vm :Text, follow :Bool, backlog :UInt32, sink :EventSink) -> ();
  # The last `backlog` events (of one VM, or of all that the caller may see), then, if asked to, what happens from now on,
  # until the call is cancelled. Returns when there is no more.

  forcePower @8 (vm :Text, reset :Bool) -> (failure :Failure);
  # By QMP: the VM is off, or reset, without asking the guest. Needs power.shutdown or power.restart.

  explainPolicy @9 (query :PolicyQuery) -> (text :Text, allowed :Bool, failure :Failure);
  reloadPolicy @10 () -> (failure :Failure, hash :Text);
  # explain needs admin.policy, unless the caller asks about itself.

  audit @11 (last :UInt32) -> (lines :List(Text), failure :Failure);
  # The newest lines of the audit log. Needs admin.audit.

  whenOff @13 (vm :Text, reset :Bool) -> (how :Text, failure :Failure);
  # When QEMU says SHUTDOWN (or RESET); fails with `invalid` if the VM has no QMP socket. Ask before the guest is asked to
  # go. Needs what open() needs for power.shutdown or power.restart.

  daemonInfo @12 () -> (version :Text, pid :UInt32, vms :UInt32, policyHash :Text, auditTrouble :Text);
  # `auditTrouble`: why the audit log cannot be written now; empty: it can.

  channels @14 (vm :Text) -> (channels :List(Channel), failure :Failure);
  # The live channels (of one VM; empty: of all) all of whose VMs the caller may see.

  ports @15 (vm :Text) -> (ports :List(Port), rules :List(RuleTraffic), failure :Failure);
  # The ports of the VMs that the caller may see (of one VM; empty: of all), and the counters of each rule and VM.

  blockPort @16 (vm :Text, blocked :Bool) -> (cut :UInt32, failure :Failure);
  # Blocks a VM's port, or unblocks it, beside what the policy says, and remembers it. `cut`: channels and connections
  # that this ended. Needs admin.block.

  closeChannel @17 (id :UInt64) -> (failure :Failure);
  # Resets one channel. Needs admin.block.

  hostKey @18 () -> (key :Text, failure :Failure);
  # What VMs that come here are sealed to (move/transfer-key.h). For anybody.

  exportVm @19 (name :Text, to :Text) -> (sealed :Text, failure :Failure);
  # Ends the VM's session and link and makes it inactive here: it is moved to the host with the key `to`, and `sealed` is what
  # that host imports. Once more for the same host: the same again. Needs admin.export.

  cancelExport @20 (name :Text) -> (failure :Failure);
  # The VM is here again, with the keys that it had. Not for one that another host has imported. Needs admin.export.

  importVm @21 (sealed :Text, name :Text, from :Text, transport :Text, grants :Bool) -> (vm :Vm, from :Text, offeredGrants :Text, grantFile :Text, failure :Failure);
  # Registers a VM with the keys that it had on another host, which its agent replaces as soon as it is here. `name`, `from`:
  # what the VM and the other host's key have to be, where they are not empty. `transport` may be empty for a VM that comes
  # back. `offeredGrants`: what `enroll --grant` had written there; with `grants` it is this host's policy now, in `grantFile`.
  # Needs admin.enroll.
}

struct VmSettings {
  name @0 :Text;
  uuid @1 :Text;
  # Empty: a random one.
  transport @2 :Text;
  # An endpoint from the host's side: unix:PATH, hybrid:PATH[:PORT], serial:PATH, vsock:CID[:PORT].
  tags @3 :List(Text);
  qmp @4 :Text;
  # Path of QEMU's QMP socket; empty: none.
}

struct Vm {
  settings @0 :VmSettings;
  enrolled @1 :Bool;
  offerPending @2 :Bool;
  # A bundle is out whose lifetime is not over.
  hostFingerprint @3 :Text;
  guestFingerprint @4 :Text;
  sessionPid @5 :UInt32;
  connected @6 :Bool;
  peer @7 :Text;
  sessions @8 :UInt64;
  # How many have been made since the session process began.
  quarantined @9 :Bool;
  status @10 :VmStatus;
  linkTrouble @11 :Text;
  # Why posternd cannot listen for the guest, or connect to its channel, now; empty: it can.
  qmpTrouble @12 :Text;
  # The same of its QMP socket, or of what libvirt says in its place.
  movedTo @13 :Text;
  # The key of the host that it was moved to; empty: it is here.
  movedMilliseconds @14 :UInt64;
  # When, since 1970.
  inheritedKeys @15 :Bool;
  # Its keys are those that it had on another host, and not replaced yet.
}

struct VmStatus {
  name @0 :Text;
  colour @1 :Text;
  # green, yellow, red, gray
  reason @2 :Text;
  sinceMilliseconds @3 :UInt64;
  # For how long.
  heartbeatMilliseconds @4 :Int64;
  # Since the last one; -1: there was none.
  agentVersion @5 :Text;
  uptimeSeconds @6 :UInt64;
}

interface EventSink {
  event @0 (event :Event) -> stream;
}

struct Event {
  sequence @0 :UInt64;
  time @1 :Text;
  # RFC 3339, UTC.
  vm @2 :Text;
  # Empty: of the host.
  kind @3 :Text;
  # connected, lost, booted, goodbye, rollback, token-reuse, duplicate-identity, denied, power, policy-reload, ...
  text @4 :Text;
  # For a person; printable.
}

struct Channel {
  # A live connection to a service.

  id @0 :UInt64;
  from @1 :Text;
  # user:NAME, or vm:NAME
  to @2 :Text;
  # vm:NAME, or host
  service @3 :Text;
  rule @4 :Text;
  openForMilliseconds @5 :UInt64;
  traffic @6 :Traffic;
}

struct Traffic {
  # Counters. `there`: towards the service, or out of the VM; `back`: from it.

  bytesThere @0 :UInt64;
  bytesBack @1 :UInt64;
  messagesThere @2 :UInt64;
  messagesBack @3 :UInt64;
  # Pieces in which they travelled: records of the link.
  throttledNanoseconds @4 :UInt64;
  # That pieces waited for a limit, summed over all that waited.
}

struct Port {
  # A VM's port. Its counters are of all channels that the VM has had, on either end, since posternd began, or its session
  # process, if that is older.

  vm @0 :Text;
  blocked @1 :Bool;
  # By policy or by hand.
  blockedByHand @2 :Bool;
  opened @3 :UInt64;
  denied @4 :UInt64;
  # By policy, at the VM's own asking or for it; also calls that are no service.
  refused @5 :UInt64;
  # By a limit of opens or calls, because there were too many, or because the target was not reached.
  active @6 :UInt32;
  outOf @7 :Traffic;
  # `there`: out of the VM; `back`: into it.
  lastDeniedRule @8 :Text;
  # The id of the rule that denied last, or of the reason: "no-rule", "vm-to-vm-disabled", ...
  mirrorDropped @9 :UInt64;
  # Frames for a mirror that did not read.
}

struct RuleTraffic {
  rule @0 :Text;
  vm @1 :Text;
  # Whose channels pass the rule: the VM that asked, or that a program of the host asked for.
  opened @2 :UInt64;
  refused @3 :UInt64;
  active @4 :UInt32;
  traffic @5 :Traffic;
}

struct PolicyQuery {
  from @0 :Text;
  # user:NAME, or a VM; empty: the caller.
  to @1 :Text;
  call @2 :Text;
  path @3 :Text;
}

interface ChannelObserver {
  closed @0 (why :Text);
  # Called once, when the channel is over and its socket has been told: "finished", "reset", "cut", "link-ended".
}

interface VmCalls {
  # One VM's session process, for one caller, within one grant.

  ping @0 () -> (linkNanoseconds :UInt64, failure :Failure);
  # To the agent and back. `linkNanoseconds` is what the session process measured on the link.

  info @1 (what :UInt32) -> (info :Guest.Info, failure :Failure);
  # Bits as in GuestCalls.info; those that were not granted are refused in the answer.

  power @2 (request :Guest.PowerRequest, observer :Guest.PowerObserver) -> (operation :UInt64, failure :Failure);
  # Returns when the guest has accepted.

  whenGone @3 (reset :Bool) -> (how :Text, failure :Failure);
  # Resolves when the guest has said goodbye and the link is silent; with `reset`, when a heartbeat with another boot id has
  # come, and fails if the old one comes back. Ask before power() is called.

  issueBundle @4 (lifetimeSeconds :UInt32, transport :Text, grants :Text) -> (bundle :Text, hostFingerprint :Text, failure :Failure);
  # A new key and a new token for this VM; what was issued before and not used is void. An enrolled VM stays enrolled with
  # its old keys until the new ones are used. Needs admin.enroll or admin.rekey. `transport` is the guest's endpoint.

  file @5 (order :Transfer.FileOrder, opener :Descriptor) -> (summary :Transfer.Summary, problem :Transfer.Problem, failure :Failure);
  # get, put, list, stat: `opener` is the mover's end of a SOCK_SEQPACKET pair, at whose other end the caller's own opener
  # (protocol/transfer.capnp) reads or makes the files with the caller's rights. Returns when the transfer is over; cancelling
  # the call ends it. mkdir, remove: without `opener`. The call and the order's path must lie within what open() granted.

  connect @6 (service :Text, stream :Descriptor, observer :ChannelObserver) -> (channel :UInt64, failure :Failure);
  # One connection to a service of the VM. `stream` is a stream socket whose other end is the caller's. Returns when the
  # service's target was reached, with the channel's id; from then on bytes flow until both directions have ended, each by
  # itself, or one side resets. The channel ends with this capability. `observer`, which may be null, is told how it ended: a
  # Unix socket looks the same at a reset as at an orderly end. Fails with `lapsed` when the posternd that gave this capability
  # has gone: the guest is not asked, or what it has just reached is let go; nothing has passed `stream`. Needs service.NAME.

  services @7 () -> (services :List(Text), failure :Failure);
  # What the guest exports and its policy grants to this caller. For any grant with a service.* call; which of them the
  # host's policy grants, open() says.
}
