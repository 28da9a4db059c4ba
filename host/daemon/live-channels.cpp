#include "host/daemon/live-channels.h"

#include <kj/debug.h>
#include <sys/socket.h>

#include "host/daemon/patience.h"
#include "host/log/log.h"
#include "transport/close-elsewhere.h"
#include "transport/relay/relay-end.h"

namespace postern::host {

kj::String ChannelEntry::from() const {
  KJ_IF_MAYBE (c, caller) return (*c)->name();
  return kj::str("vm:", vm);
}

kj::String ChannelEntry::target() const {
  if (isBetweenVms()) return kj::str("vm:", to);
  return caller == nullptr ? kj::str("host") : kj::str("vm:", vm);
}

struct LiveChannels::Live {
  ChannelEntry entry;
  StrangersFd copy;
  const bool hadCopy;
  kj::Maybe<kj::Promise<void>> program;
  kj::StringPtr cutWhy;  // empty: it was not cut
  kj::Promise<void> cutting = nullptr;
  // What the first session of one between VMs has said, while it is still on its way through the other one.
  struct Finished {
    kj::String vm;
    ChannelClosing closing;
  };
  kj::Maybe<Finished> finished;

  Live(ChannelEntry e, kj::AutoCloseFd fd, kj::Maybe<kj::Promise<void>> p)
      : entry(kj::mv(e)), copy(kj::mv(fd)), hadCopy(copy >= 0), program(kj::mv(p)) {}

  // What the other session has not passed yet can still be cut: it stays listed.
  bool waitsForOther(kj::StringPtr name, const ChannelClosing& closing) {
    if (!entry.isBetweenVms() || cutWhy.size() > 0) return false;
    if (finished != nullptr) return hasFinished(name);
    finished = Finished{kj::str(name), closing};
    return true;
  }

  bool hasFinished(kj::StringPtr name) const {
    KJ_IF_MAYBE (first, finished) return first->vm == name;
    return false;
  }

  void abort() {
    if (copy < 0) return;
    cutSocket(copy);
    copy = {};
  }
};

LiveChannels::LiveChannels(kj::UnixEventPort& port, Handler& handler, size_t most)
    : port(port),
      handler(handler),
      most(most),
      mostPerVm(kj::min(size_t(MAX_CHANNELS_PER_VM), most / 2)),
      tasks(*this) {}
LiveChannels::~LiveChannels() noexcept(false) {}

bool LiveChannels::hasRoomFor(kj::StringPtr vm) const {
  return live.size() < most && countByVm.find(vm).orDefault(0) < mostPerVm;
}

void LiveChannels::add(ChannelEntry entry, kj::AutoCloseFd copy, kj::Maybe<kj::Promise<void>> program) {
  auto id = entry.id;
  countFor(entry.holder());
  live.insert(id, kj::heap<Live>(kj::mv(entry), kj::mv(copy), kj::mv(program)));
}

void LiveChannels::confirm(ChannelEntry& channel) {
  uncountFor(channel.holder());
  channel.isConfirmed = true;
  countFor(channel.holder());
}

void LiveChannels::countFor(kj::StringPtr vm) {
  ++countByVm.findOrCreate(vm, [&]() { return kj::HashMap<kj::String, size_t>::Entry{kj::str(vm), 0}; });
}

void LiveChannels::uncountFor(kj::StringPtr vm) {
  auto& count = KJ_ASSERT_NONNULL(countByVm.find(vm));
  if (--count == 0) countByVm.erase(vm);
}

kj::Maybe<ChannelEntry&> LiveChannels::find(uint64_t id) {
  KJ_IF_MAYBE (channel, live.find(id)) return (*channel)->entry;
  return nullptr;
}

bool LiveChannels::isBeingCut(uint64_t id) const {
  KJ_IF_MAYBE (channel, live.find(id)) return (*channel)->cutWhy.size() > 0;
  return false;
}

// T114
void LiveChannels::closed(kj::StringPtr vm, const ChannelClosing& closing) {
  KJ_IF_MAYBE (found, live.find(closing.id)) {
    auto& channel = **found;
    if (!channel.entry.isHeldBy(vm)) return;
    if (closing.why == "finished" && channel.waitsForOther(vm, closing)) return;
    // One session's word counts, and holds for the other: nothing passes a channel that is not listed.
    if (channel.entry.isBetweenVms() && channel.copy < 0 && channel.finished == nullptr) {
      const ChannelEntry* entry = &channel.entry;
      tasks.add(handler.cutInSessions({&entry, 1}));
    }
    if (closing.why == "finished" && channel.copy >= 0) {
      (void)shutdown(channel.copy, SHUT_RDWR);
      channel.copy = {};
    }
    finish(closing.id, closing.why, closing);
  }
}

void LiveChannels::cut(uint64_t id, kj::StringPtr why) {
  KJ_IF_MAYBE (channel, live.find(id)) {
    if ((*channel)->cutWhy.size() == 0) cutNow(**channel, why);
  }
}

unsigned LiveChannels::cutIf(kj::FunctionParam<kj::Maybe<kj::StringPtr>(const ChannelEntry&)> why) {
  kj::Vector<Live*> forbidden;
  for (auto& entry : live) {
    auto& channel = *entry.value;
    if (channel.cutWhy.size() > 0) continue;
    KJ_IF_MAYBE (reason, why(channel.entry)) {
      channel.cutWhy = *reason;
      forbidden.add(&channel);
    }
  }
  cutNow(forbidden);
  return unsigned(forbidden.size());
}

void LiveChannels::sessionGone(kj::StringPtr vm) {
  kj::Vector<uint64_t> over;
  for (auto& entry : live) {
    auto& channel = *entry.value;
    if (!channel.entry.concerns(vm) || channel.hasFinished(vm)) continue;
    if (!channel.entry.isBetweenVms()) {
      over.add(entry.key);
    } else if (channel.cutWhy.size() == 0) {
      cutNow(channel, SESSION_ENDED);  // the other VM's session says what has passed
    }
  }
  for (auto id : over) finish(id, SESSION_ENDED, nullptr);
}

void LiveChannels::forEach(kj::FunctionParam<void(const ChannelEntry&)> what) const {
  for (auto& entry : live) what(entry.value->entry);
}

void LiveChannels::cutNow(Live& channel, kj::StringPtr why) {
  channel.cutWhy = why;
  auto* one = &channel;
  cutNow({&one, 1});
}

void LiveChannels::cutNow(kj::ArrayPtr<Live* const> channels) {
  if (channels.size() == 0) return;
  auto entries = KJ_MAP(channel, channels)->const ChannelEntry* {
    return &channel->entry;
  };
  auto inSessions = handler.cutInSessions(entries).catch_([](kj::Exception&&) {}).fork();
  for (auto* channel : channels) {
    channel->cutting = cutNow(*channel, inSessions.addBranch()).eagerlyEvaluate([](kj::Exception&& e) {
      logEvent(LogLevel::ERROR, "internal", e.getDescription());
    });
  }
}

// T114
kj::Promise<void> LiveChannels::cutNow(Live& channel, kj::Promise<void> inSessions) {
  auto& timer = port.getTimer();
  // The sessions first: they reset their guests' ends, where an aborted socket might look like an orderly end.
  return inSessions.exclusiveJoin(timer.afterDelay(CUT_BY_FORCE))
      .then([&channel, &timer]() {
        channel.abort();
        return patience(timer, CLOSING_PATIENCE);
      })
      .then([this, id = channel.entry.id]() {
        tasks.add(kj::evalLater([this, id]() { giveUp(id); }));  // which destroys this promise
      });
}

void LiveChannels::giveUp(uint64_t id) {
  KJ_IF_MAYBE (channel, live.find(id)) {
    // What had a copy has been ended with it.
    if (!(*channel)->hadCopy && (*channel)->cutWhy != SESSION_ENDED) handler.disobeyed((*channel)->entry);
    finish(id, "cut", nullptr);
  }
}

void LiveChannels::finish(uint64_t id, kj::StringPtr why, kj::Maybe<const ChannelClosing&> closing) {
  auto channel = kj::mv(KJ_REQUIRE_NONNULL(live.find(id)));
  live.erase(id);
  uncountFor(channel->entry.holder());
  channel->abort();
  // The first session's word counts.
  KJ_IF_MAYBE (first, channel->finished) closing = first->closing;
  handler.channelOver(channel->entry, channel->cutWhy.size() > 0 ? channel->cutWhy : why, closing);
}

void LiveChannels::taskFailed(kj::Exception&& exception) {
  if (exception.getType() == kj::Exception::Type::DISCONNECTED) return;
  logEvent(LogLevel::ERROR, "internal", exception.getDescription());
}

}  // namespace postern::host
