@0xd0a4f9be3e0c61b7;
# What the broker tells the agent, over a private socket, when it starts it and at each reload: all that the agent needs
# and may not read itself. Holds tokens: both ends wipe it.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("postern::guest::wire");

struct Briefing {
  heartbeatMilliseconds @0 :UInt32;
  # Until the host wants another interval.
  policyFile @1 :Text;
  # Its name, for errors.
  policy @2 :Text;
  # The text of agent.toml, or of grants.toml; empty: everything is denied. It has been loaded without errors.
  bundles @3 :List(Text);
  # As they were found; sound ones only.
  productUuidHash @4 :Data;
  machineIdHash @5 :Data;
  # guest-agent/identity/machine.h; empty if unknown.
  pulseMilliseconds @6 :UInt32;
  # How often the agent writes one byte to show that its loop is alive; 0: never.

  services @7 :List(Service);
  # What this guest exports.
  consumers @8 :List(Consumer);
  # All that there are. The sockets of new ones come along with the message's first byte, in this order.

  retryMilliseconds @9 :UInt32;
  # At most between two attempts to reach a host that does not answer.

  struct Service {
    name @0 :Text;
    identity @1 :Data;
    # guest-agent/services/channel-service.h
  }
  struct Consumer {
    listen @0 :Text;
    from @1 :Text;
    service @2 :Text;
    isNew @3 :Bool;
  }
}
