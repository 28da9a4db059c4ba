#pragma once
// LiveChannels: the channels that live, so that posternd can show them and cut them: who has asked, for what, by which
// rule, and a copy of the descriptor that posternd has handed out for it.
//
// Guarantees of a cut: the sessions are asked to reset the channel, and at the latest CUT_BY_FORCE later the copy is
// aborted, which ends it for both ends, however stuck or hostile they are. A session that does not tell the end of a
// channel of which there is no copy (one that a program of the host opened, or that was adopted after a restart) is
// reported as disobedient. However a channel ends, its entry goes, and its Handler is told once.
// One loop.

#include <kj/async-unix.h>
#include <kj/io.h>
#include <kj/map.h>

#include "host/daemon/channel-claims.h"
#include "host/daemon/local-callers.h"

namespace postern::host {

// Each costs a descriptor.
constexpr size_t MAX_LIVE_CHANNELS = 16384;
constexpr auto CUT_BY_FORCE = 50 * kj::MILLISECONDS;
// For a session to tell what has passed a channel that was cut.
constexpr auto CLOSING_PATIENCE = 2 * kj::SECONDS;

// Why a channel was cut whose session process has gone.
constexpr kj::StringPtr SESSION_ENDED = "session-ended"_kj;

struct ChannelEntry {
  uint64_t id = 0;
  // Whose session has made it: whose guest asked, or whose service a program of the host uses.
  kj::String vm;
  kj::Maybe<kj::Own<const LocalCaller>> caller;  // that program's; null: the guest asked
  uint64_t grant = 0;                            // of that program; 0: of an earlier posternd
  kj::String to;                                 // the VM that a guest asked for; empty: the host, or `vm` itself
  kj::String service;
  kj::String rule;
  kj::String hostTarget;  // of a service of the host: what it led to (HostServices::identityOf())
  kj::TimePoint opened = kj::origin<kj::TimePoint>();
  // False: after a restart, that VM's session has not claimed it. The other one's word binds nobody but itself.
  bool isConfirmed = true;          // by the session of `vm`
  bool isConfirmedByTarget = true;  // by that of `to`
  kj::String mirror;                // where its records go; empty: nowhere

  bool isBetweenVms() const { return to.size() > 0; }
  bool concerns(kj::StringPtr name) const { return vm == name || to == name; }
  bool isHeldBy(kj::StringPtr name) const { return (vm == name && isConfirmed) || (to == name && isConfirmedByTarget); }
  // For whom it counts.
  kj::StringPtr holder() const { return isConfirmed ? vm : to; }
  kj::String from() const;    // "user:alice", "vm:web1"
  kj::String target() const;  // "vm:db1", "host"
};

class LiveChannels final : private kj::TaskSet::ErrorHandler {
 public:
  class Handler {
   public:
    // To the session processes that hold them and are there; resolves when they have answered.
    virtual kj::Promise<void> cutInSessions(kj::ArrayPtr<const ChannelEntry* const> channels) = 0;
    // It is no longer among them. `closing`: what a session said; null: none did.
    virtual void channelOver(const ChannelEntry& channel, kj::StringPtr why,
                             kj::Maybe<const ChannelClosing&> closing) = 0;
    virtual void disobeyed(const ChannelEntry& channel) = 0;
  };

  // Both outlive this.
  LiveChannels(kj::UnixEventPort& port, Handler& handler, size_t most = MAX_LIVE_CHANNELS);
  ~LiveChannels() noexcept(false);
  KJ_DISALLOW_COPY(LiveChannels);

  // For one more that counts for this VM.
  bool hasRoomFor(kj::StringPtr vm) const;
  // Under an id that none of them has. `copy`: of what was handed out, null if there is none. `program`: runs for the
  // channel, and is ended with it.
  void add(ChannelEntry entry, kj::AutoCloseFd copy, kj::Maybe<kj::Promise<void>> program = nullptr);
  kj::Maybe<ChannelEntry&> find(uint64_t id);
  bool isBeingCut(uint64_t id) const;
  // One that is known, by the session of the VM that asked: it counts for that VM from now on.
  void confirm(ChannelEntry& channel);

  // A session of this VM says so. Of a channel that is none of its, or not known, it is ignored. One between VMs that
  // has finished is over when both sessions have said so.
  void closed(kj::StringPtr vm, const ChannelClosing& closing);
  // `why` is static. Nothing happens to one that is not known, or is being cut.
  void cut(uint64_t id, kj::StringPtr why);
  // Those for which `why` has a reason, a static text, are cut; how many those were.
  unsigned cutIf(kj::FunctionParam<kj::Maybe<kj::StringPtr>(const ChannelEntry&)> why);
  // The VM's session process is gone: what passed it is over.
  void sessionGone(kj::StringPtr vm);

  size_t size() const { return live.size(); }
  void forEach(kj::FunctionParam<void(const ChannelEntry&)> what) const;

 private:
  struct Live;

  kj::UnixEventPort& port;
  Handler& handler;
  const size_t most;
  const size_t mostPerVm;  // one VM leaves room for others, however few descriptors there are
  kj::HashMap<uint64_t, kj::Own<Live>> live;
  kj::HashMap<kj::String, size_t> countByVm;
  kj::TaskSet tasks;

  void countFor(kj::StringPtr vm);
  void uncountFor(kj::StringPtr vm);
  // `cutWhy` of each says why. In one go: a thousand are over soon after the first.
  void cutNow(kj::ArrayPtr<Live* const> channels);
  kj::Promise<void> cutNow(Live& channel, kj::Promise<void> inSessions);
  void cutNow(Live& channel, kj::StringPtr why);
  void giveUp(uint64_t id);
  void finish(uint64_t id, kj::StringPtr why, kj::Maybe<const ChannelClosing&> closing);
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::host
