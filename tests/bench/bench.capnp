@0x878e1f876f7b12b8;
# What the far process of a measurement does for the near one.

using Cxx = import "/capnp/c++.capnp";
using Echo = import "/tests/support/echo.capnp".Echo;
$Cxx.namespace("postern::bench");

interface Bench {
  echo @0 () -> (echo :Echo);
  # Accepts the bulk channel of this offer, reads it to its end, and says how much came.
  drain @1 (channel :UInt32, credit :UInt32) -> (bytes :UInt64);
}
