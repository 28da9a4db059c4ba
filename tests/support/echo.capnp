@0xf3e81d2f2ded71b3;
# A small interface for tests and benchmarks of RPC.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("postern::test");

interface Echo {
  echo @0 (data :Data) -> (data :Data);
  ping @1 (number :UInt64) -> (number :UInt64);
  fail @2 (text :Text) -> ();
  hang @3 () -> ();
  take @4 (data :Data) -> stream;
  count @5 () -> (calls :UInt64);
}

interface Probe extends(Echo) {
  echoBulk @0 (channel :UInt32, credit :UInt32) -> ();
  # Accepts the offered bulk channel and sends back every byte; returns when the caller's direction has finished.
}
