@0xe7b0c9a4d15f3862;
#What the broker writes to the standard input of an opener(opener - process.h) that it starts.

using Cxx = import "/capnp/c++.capnp";
using Transfer = import "/protocol/transfer.capnp";
$Cxx.namespace("postern::guest::wire");

struct OpenerOrder {
  order @0 : Transfer.FileOrder;
  scope @1 : Transfer.PathScope;
#Every path is decided by it, once more and for the last time.
  root @2 : Data;
#The folder that the opener confines itself to, canonical; order.path is it or is below it.
  user @3 : Text;
#As whom it runs, for people.
}
