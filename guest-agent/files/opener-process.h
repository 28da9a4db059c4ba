#pragma once
// The opener's process: started by the broker (opener-start.h) as this program with the hidden option --opener, as the
// user that the guest's policy names, for one order about files. It has these descriptors:
//
//   0  the order (opener-order.h)          3  the agent's mover, SOCK_SEQPACKET (protocol/transfer.capnp)
//   1  nobody reads it                     2  the broker's log
//
// It opens the folder that the policy's rule is about, without following a symbolic link, enters its sandbox
// (opener-sandbox.h), does what the order says beneath that folder, and ends; earlier when the mover goes. Whatever is
// in the way is said over the socket: as a refusal, or as the failure of the one entry that the order's path is.

#include <kj/string.h>

namespace postern::guest {

// Its exit status: 0 if it could answer, whatever that was; 1 if not.
int runOpener();

}  // namespace postern::guest
