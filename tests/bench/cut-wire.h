#pragma once
// CutWire: a Unix socket that leads to another one, and can be cut: both ends of all connections see them end, as a
// guest and its host do when what is between them fails.

#include <kj/async-io.h>
#include <kj/string.h>

namespace postern::bench {

class CutWire final : private kj::TaskSet::ErrorHandler {
 public:
  // Listens at `from` and leads to `to`. `io` outlives it.
  CutWire(kj::AsyncIoContext& io, kj::StringPtr from, kj::StringPtr to);
  KJ_DISALLOW_COPY(CutWire);

  void cut();
  // Connections that have been made so far.
  unsigned made() const { return connections; }

 private:
  kj::Own<kj::NetworkAddress> far;
  kj::Own<kj::ConnectionReceiver> near;
  unsigned connections = 0;
  kj::Own<kj::TaskSet> wires;
  kj::Promise<void> accepting;

  kj::Promise<void> acceptAll();
  kj::Promise<void> lead(kj::Own<kj::AsyncIoStream> socket);
  void taskFailed(kj::Exception&&) override {}  // an end that is not there, or ended first
};

}  // namespace postern::bench
