#pragma once
// PassedTcp: the TCP sockets that the peer of a LocalRpc has passed, for who takes such ones at all.
//
// close(2) of a TCP socket may take as long as its sender likes (SO_LINGER, which whoever has a duplicate can set until
// the last moment), so none is closed on the loop: the RPC system, which closes what nobody has taken, has a stand-in
// for each, which closes at once, and the socket waits here under the stand-in's number. What is never taken is closed
// elsewhere (transport/close-elsewhere.h), at the latest with this. One for one LocalRpc, shared with those that take.

#include <kj/async.h>
#include <kj/io.h>
#include <kj/refcount.h>

#include <map>

#include "host/control/control.capnp.h"

namespace postern::host {

class PassedTcp final : public kj::Refcounted {
 public:
  PassedTcp() = default;
  ~PassedTcp() noexcept(false);
  KJ_DISALLOW_COPY(PassedTcp);

  // For the stream that receives them. Null: there are no more descriptors to be had.
  kj::AutoCloseFd standInFor(kj::AutoCloseFd socket);
  // A descriptor has come that is no stand-in: one that had its number is closed.
  void cameAlone(int descriptor);

  // As takeDescriptor(): the socket that was passed, once, or one of another kind.
  kj::Promise<kj::Maybe<kj::AutoCloseFd>> take(schema::Descriptor::Client descriptor);

 private:
  std::map<int, kj::AutoCloseFd> sockets;
};

// A socket that a stranger has passed: it is closed where that may take its time.
class StrangersSocket {
 public:
  StrangersSocket() = default;
  explicit StrangersSocket(kj::AutoCloseFd fd) : fd(kj::mv(fd)) {}
  ~StrangersSocket() noexcept(false);
  StrangersSocket(StrangersSocket&&) = default;
  StrangersSocket& operator=(StrangersSocket&& other);
  KJ_DISALLOW_COPY(StrangersSocket);

  int get() const { return fd.get(); }
  bool isNone() const { return fd.get() < 0; }
  // For an owner that closes it on the loop, before this is destroyed: where closing may take its time, his is not the
  // last descriptor. Null: there are no more to be had.
  kj::AutoCloseFd forLoop();

 private:
  kj::AutoCloseFd fd;
};

// TCP or Unix, and at both its ends.
bool isConnectedStream(int fd);

}  // namespace postern::host
