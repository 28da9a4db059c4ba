#pragma once
// PassedSockets: the sockets that the peer of a LocalRpc has passed, for who takes any at all.
//
// What a stranger has passed is not closed on a loop (transport/close-elsewhere.h): a TCP socket may linger, and in a
// Unix socket another one may lie unread. But the RPC system closes what nobody has taken where it is. So it has a
// stand-in for each, which closes at once, and the socket waits here under the stand-in's number. What is never taken
// is closed when MAX_WAITING later ones wait, and at the latest with this. One for one LocalRpc, shared with those that
// take.

#include <kj/async.h>
#include <kj/refcount.h>

#include <deque>
#include <utility>

#include "host/control/control.capnp.h"
#include "transport/close-elsewhere.h"

namespace postern::host {

class PassedSockets final : public kj::Refcounted {
 public:
  // For the stream that receives them. Null: there are no more descriptors to be had.
  kj::AutoCloseFd standInFor(StrangersFd socket);

  // The socket that was passed, once; or, of a capability of this process, as takeDescriptor() does. None: none came.
  kj::Promise<StrangersFd> take(schema::Descriptor::Client descriptor);

 private:
  static constexpr size_t MAX_WAITING = 64;  // a call takes its own as it begins

  std::deque<std::pair<int, StrangersFd>> sockets;

  StrangersFd remove(int standIn);
};

// TCP or Unix, and at both its ends.
bool isConnectedStream(int fd);

}  // namespace postern::host
