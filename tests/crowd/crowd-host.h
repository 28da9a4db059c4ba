#pragma once
// CrowdHost: the product's host side for many VMs: a listening socket, keys and a Reception each, all under one
// Admission. On a clock that the test turns, or on the real one.

#include <kj/async-unix.h>
#include <kj/map.h>
#include <kj/timer.h>
#include <kj/vector.h>

#include "tests/support/temporary-folder.h"
#include "tests/support/vm-keys.h"
#include "transport/reception.h"

namespace postern::test {

// A loop with real descriptors. Raises this process's limit of them to what a crowd needs; fails if it may not.
struct CrowdLoop {
  // `sockets`: as many as may be watched at a time.
  explicit CrowdLoop(unsigned sockets);

  const unsigned sockets;
  kj::UnixEventPort port;
  kj::EventLoop loop{port};
  kj::WaitScope scope{loop};
  kj::TimerImpl turned{kj::origin<kj::TimePoint>()};  // the hand-turned clock

  // Until nothing is left to do without the clock.
  void settle();
  void turn(kj::Duration by) {
    turned.advanceTo(turned.now() + by);
    settle();
  }
};

// Descriptors that this process has open.
size_t descriptorsOpen();

class CrowdHost final : private Reception::Handler {
 public:
  CrowdHost(CrowdLoop& loop, kj::Timer& timer, unsigned vmCount);
  ~CrowdHost() noexcept(false);

  struct Vm {
    kj::String name;
    kj::String path;  // of its socket
    VmKeys keys;
    kj::Maybe<kj::Own<Listener>> listener;
    kj::Maybe<kj::Own<Reception>> reception;
  };

  CrowdLoop& loop;
  kj::Timer& timer;
  TestRandom random;
  BlockPool pool;
  ReadScratch scratch;
  Admission admission;
  const ReceptionEnvironment environment;
  kj::Vector<kj::Own<Vm>> vms;

  // Starts and stops listening at every door. Sessions stay.
  void open();
  void close();

  kj::Vector<kj::Own<Session>> sessions;  // of the guests that got in
  unsigned liveSessions() const;
  uint64_t rejections = 0;
  uint64_t rejectedFor(kj::StringPtr why) const;  // by describe()'s words

 private:
  TemporaryFolder folder;
  kj::HashMap<kj::String, uint64_t> reasons;

  HostKeyring& keyringOf(kj::StringPtr vm) override;
  void arrived(kj::Own<IncomingSession> guest, const PeerAddress& peer, kj::StringPtr vm) override;
  void rejected(const Rejection& why, const PeerAddress& peer, kj::StringPtr vm) override;
  void stopped(kj::Exception&& why) override;
};

}  // namespace postern::test
