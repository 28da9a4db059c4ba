#pragma once
// AgentStage: the agent's core and a SmallHost on one loop with a hand-turned clock, joined by socket pairs, so that a
// test can kill either at any write to a disk and start it again.

#include <kj/async-unix.h>
#include <kj/debug.h>
#include <kj/timer.h>
#include <sys/socket.h>

#include <algorithm>

#include "guest-agent/agent/agent.h"
#include "tests/support/small-host.h"
#include "tests/support/test-random.h"

namespace postern::guest::test {

using postern::test::SmallHost;
using postern::test::TestRandom;

// The machine stopped.
struct Crash {};

// What a disk holds, and when the machine stops: at the Nth write, before or after it took effect.
struct Disk {
  kj::Maybe<kj::Array<kj::byte>> files[2];
  unsigned writes = 0;
  unsigned crashAt = 0;  // 0: never
  bool crashBefore = false;
  bool full = false;
  bool crashed = false;  // nothing is written after that
};

class DiskVault final : public Vault {
 public:
  DiskVault(Disk& disk, unsigned number) : disk(disk), file(disk.files[number]) {}

  kj::Maybe<kj::ArrayPtr<const kj::byte>> state() const override {
    KJ_IF_MAYBE (bytes, file) return kj::ArrayPtr<const kj::byte>(*bytes);
    return nullptr;
  }
  kj::Maybe<VaultError> write(kj::ArrayPtr<const kj::byte> state) override {
    return change([&]() { file = kj::heapArray<kj::byte>(state); });
  }
  kj::Maybe<VaultError> clear() override {
    if (file == nullptr) return nullptr;
    return change([&]() { file = nullptr; });
  }
  kj::StringPtr name() const override { return "/disk"; }

 private:
  Disk& disk;
  kj::Maybe<kj::Array<kj::byte>>& file;

  template <typename Effect>
  kj::Maybe<VaultError> change(Effect&& effect) {
    if (disk.full) return VaultError{kj::str("/disk: full")};
    if (disk.crashed) throw Crash();
    disk.crashed = ++disk.writes == disk.crashAt;
    if (!disk.crashed || !disk.crashBefore) effect();
    if (disk.crashed) throw Crash();
    return nullptr;
  }
};

class FixedClocks final : public Clocks {
 public:
  explicit FixedClocks(kj::Timer& timer) : timer(timer) {}
  kj::Duration monotonic() const override { return timer.now() - kj::origin<kj::TimePoint>(); }
  kj::Duration boot() const override { return monotonic(); }

 private:
  kj::Timer& timer;
};

class StageBroker final : public BrokerClient {
 public:
  StageBroker(kj::UnixEventPort& port, kj::Maybe<SmallHost&>& host, const TransportKind& transport)
      : port(port), host(host), transport(transport) {}

  unsigned settled = 0;
  unsigned connects = 0;

  kj::Promise<Connected> connect() override {
    KJ_IF_MAYBE (h, host) {
      int ends[2];
      KJ_SYSCALL(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends));
      auto pipe = newSocketPipe(port, kj::AutoCloseFd(ends[1]));
      ++connects;
      if (transport == TransportKind::SERIAL) {
        h->serveSerial(kj::mv(pipe));
      } else {
        h->serve(kj::mv(pipe));
      }
      return Connected(Connection{transport, DescriptorKind::SOCKET, UnknownPeer(), kj::AutoCloseFd(ends[0])});
    }
    return Connected(TransportError{kj::str("nobody there")});
  }
  kj::Promise<bool> enrolled() override {
    ++settled;
    return false;
  }

  // Not of these tests.
  kj::Promise<kj::OneOf<kj::Array<kj::byte>, ProbeTimedOut, BrokerRefusal>> probe(Probe, kj::Duration) override {
    KJ_UNREACHABLE;
  }
  kj::Promise<kj::Array<kj::String>> inhibitors(PowerAction) override { KJ_UNREACHABLE; }
  kj::Promise<kj::Array<kj::String>> hooks(PowerAction) override { KJ_UNREACHABLE; }
  kj::Promise<kj::Maybe<BrokerRefusal>> runHook(PowerAction, kj::StringPtr, kj::StringPtr) override { KJ_UNREACHABLE; }
  kj::Promise<void> tellUsers(kj::StringPtr) override { KJ_UNREACHABLE; }
  kj::Promise<kj::Maybe<BrokerRefusal>> power(PowerAction, kj::StringPtr) override { KJ_UNREACHABLE; }
  kj::Promise<kj::OneOf<OpenedFiles, FilesRefusal>> openFiles(const transfer::FileOrder&, kj::StringPtr) override {
    KJ_UNREACHABLE;
  }
  kj::Promise<kj::OneOf<OpenedService, ServiceRefusal>> openService(kj::StringPtr, kj::StringPtr) override {
    KJ_UNREACHABLE;
  }

 private:
  kj::UnixEventPort& port;
  kj::Maybe<SmallHost&>& host;
  const TransportKind& transport;
};

class AgentStage {
 public:
  explicit AgentStage(uint64_t seed = 1)
      : loop(port), waitScope(loop), timer(kj::origin<kj::TimePoint>() + 1000 * kj::SECONDS), random(seed) {
    ownHost = kj::heap<SmallHost>(timer, random);
    host = *ownHost;
  }
  ~AgentStage() noexcept(false) { kill(); }

  kj::UnixEventPort port;
  kj::EventLoop loop;
  kj::WaitScope waitScope;
  kj::TimerImpl timer;
  TestRandom random;
  Disk disk;
  kj::Own<SmallHost> ownHost;
  kj::Maybe<SmallHost&> host;  // null: nobody answers
  TransportKind transport = TransportKind::UNIX;
  Machine machine{MachineHash{1}, nullptr};

  // One life of the agent's process.
  struct Life {
    DiskVault current, successor;
    FixedClocks clocks;
    Vitals vitals;
    GapWatch gaps;
    StageBroker broker;
    kj::Own<const GuestPolicy> policy = GuestPolicy::denyAll();
    InfoService info;
    PowerService power;
    FileService files;
    ChannelService channels;
    Consumers consumers;
    GuestServices services;
    HeartbeatSource heartbeats;
    kj::Maybe<kj::Own<Pairing>> pairing;
    kj::Maybe<kj::Own<Agent>> agent;
    kj::Promise<void> running = kj::NEVER_DONE;

    explicit Life(AgentStage& stage)
        : current(stage.disk, 0),
          successor(stage.disk, 1),
          clocks(stage.timer),
          vitals(nullptr, nullptr, clocks, Uint128{1, 2}),
          gaps(clocks),
          broker(stage.port, stage.host, stage.transport),
          info(broker, stage.timer, nullptr),
          power(broker, stage.timer, stage.timer, [](schema::Goodbye) {}),
          files(broker, stage.port),
          channels(broker, stage.port),
          consumers(stage.port),
          services{policy, info, power, files, channels},
          heartbeats{vitals, clocks, gaps, 1 * kj::SECONDS, 0, {}, [this]() { return power.state(); }} {}
  };
  kj::Maybe<kj::Own<Life>> life;
  bool hasCrashed() const { return disk.crashed; }

  // Starts the agent with what bundles there are. False: its identity cannot be used, or it crashed at once.
  bool start(kj::ArrayPtr<const kj::Own<Bundle>> bundles) {
    disk.crashed = false;
    auto born = kj::heap<Life>(*this);
    auto& l = *born;
    life = kj::mv(born);
    return guarded([&]() {
             auto opened = Pairing::open(l.current, l.successor, machine, random);
             if (opened.is<VaultError>()) return false;
             l.pairing = kj::mv(opened.get<kj::Own<Pairing>>());
             auto& pairing = *KJ_ASSERT_NONNULL(l.pairing);
             if (pairing.consider(bundles).is<VaultError>()) return false;
             l.agent = kj::heap<Agent>(Agent::Parts{port, timer, l.broker, pairing, l.heartbeats, l.services,
                                                    l.consumers, random, l.vitals.bootId(), Uint128{3, 4}});
             l.running = KJ_ASSERT_NONNULL(l.agent)->run().eagerlyEvaluate(nullptr);
             return true;
           }) &&
           !disk.crashed;
  }
  // More bundles, to a living agent.
  void give(kj::ArrayPtr<const kj::Own<Bundle>> bundles) {
    guarded([&]() {
      auto told = pairing().consider(bundles);
      KJ_ASSERT(!told.is<VaultError>());
      if (told.get<Pairing::Told>().news) KJ_ASSERT_NONNULL(KJ_ASSERT_NONNULL(life)->agent)->keysChanged();
      return true;
    });
  }
  // As kill -9.
  void kill() { life = nullptr; }

  Pairing& pairing() { return *KJ_ASSERT_NONNULL(KJ_ASSERT_NONNULL(life)->pairing); }
  StageBroker& broker() { return KJ_ASSERT_NONNULL(life)->broker; }

  // Turns the clock in steps until `done`, or until that much time is over, or the machine stopped. True: done.
  template <typename Done>
  bool until(Done&& done, kj::Duration atMost = 60 * kj::SECONDS) {
    auto end = timer.now() + atMost;
    while (true) {
      for (unsigned i = 0; i < 20; ++i) waitScope.poll();
      if (disk.crashed) return false;
      if (done()) return true;
      if (timer.now() >= end) return false;
      timer.advanceTo(timer.now() + 50 * kj::MILLISECONDS);
    }
  }
  // A session of an established pair, over which a heartbeat has come in this life of the agent.
  bool isWorking() {
    auto before = ownHost->heartbeats;
    return until([&]() {
      return ownHost->isConnected() && ownHost->heartbeats > before && life != nullptr && pairing().isEnrolled() &&
             ownHost->state.current != nullptr && pairing().attempts().size() == 1;
    });
  }

 private:
  template <typename Action>
  bool guarded(Action&& action) {
    try {
      return action();
    } catch (const Crash&) {
      return false;
    }
  }
};

}  // namespace postern::guest::test
