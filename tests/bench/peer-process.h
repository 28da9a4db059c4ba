#pragma once
// PeerProcess: the far process of a measurement, on the other end of one or more Unix socket pairs.

#include <kj/array.h>
#include <kj/function.h>
#include <kj/io.h>
#include <sys/types.h>

namespace postern::bench {

struct SocketPair {
  kj::AutoCloseFd near;
  kj::AutoCloseFd far;
};
SocketPair newSocketPair();

class PeerProcess {
 public:
  // Forks. `run` is called in the child with its end of each pair and may last as long as its peer keeps them open; the
  // child's exit status is 0 when it returns and 1 when it throws. To be made before this process has an event loop.
  PeerProcess(size_t pairs, kj::FunctionParam<void(kj::ArrayPtr<kj::AutoCloseFd>)> run);
  // Ends the child if it still runs.
  ~PeerProcess() noexcept(false);
  KJ_DISALLOW_COPY(PeerProcess);

  // This process's end.
  kj::AutoCloseFd takeSocket(size_t index = 0) { return kj::mv(sockets[index]); }

  // Closes what was not taken and waits for the child; throws unless it ended well.
  void finish();

 private:
  kj::Array<kj::AutoCloseFd> sockets;
  pid_t child;
};

}  // namespace postern::bench
