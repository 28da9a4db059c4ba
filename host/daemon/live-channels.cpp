#include "host/daemon/live-channels.h"

#include <kj/debug.h>
#include <sys/socket.h>

#include "host/log/log.h"
#include "transport/close-elsewhere.h"
#include "transport/relay/relay-end.h"

namespace postern::host {

namespace {

constexpr kj::StringPtr SESSION_ENDED = "session-ended"_kj;

}  // namespace

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

  Live(ChannelEntry e, kj::AutoCloseFd fd, kj::Maybe<kj::Promise<void>> p)
      : entry(kj::mv(e)), copy(kj::mv(fd)), hadCopy(copy >= 0), program(kj::mv(p)) {}

  void abort() {
    if (copy < 0) return;
    cutSocket(copy);
    copy = {};
  }
};

LiveChannels::LiveChannels(kj::UnixEventPort& port, Handler& handler, size_t most)
    : port(port), handler(handler), most(most), tasks(*this) {}
LiveChannels::~LiveChannels() noexcept(false) {}

bool LiveChannels::hasRoomFor(kj::StringPtr vm) const {
  return live.size() < most && countByVm.find(vm).orDefault(0) < MAX_CHANNELS_PER_VM;
}

void LiveChannels::add(ChannelEntry entry, kj::AutoCloseFd copy, kj::Maybe<kj::Promise<void>> program) {
  auto id = entry.id;
  ++countByVm.findOrCreate(entry.vm, [&]() { return kj::HashMap<kj::String, size_t>::Entry{kj::str(entry.vm), 0}; });
  live.insert(id, kj::heap<Live>(kj::mv(entry), kj::mv(copy), kj::mv(program)));
}

kj::Maybe<ChannelEntry&> LiveChannels::find(uint64_t id) {
  KJ_IF_MAYBE (channel, live.find(id)) return (*channel)->entry;
  return nullptr;
}

// T114
void LiveChannels::closed(kj::StringPtr vm, const ChannelClosing& closing) {
  KJ_IF_MAYBE (found, live.find(closing.id)) {
    auto& channel = **found;
    if (!channel.entry.concerns(vm)) return;
    // One session's word counts, and holds for the other: nothing passes a channel that is not listed.
    if (channel.entry.isBetweenVms() && channel.copy < 0) tasks.add(handler.cutInSessions(channel.entry));
    if (closing.why == "finished" && channel.copy >= 0) {
      (void)shutdown(channel.copy, SHUT_RDWR);
      channel.copy = {};
    }
    finish(closing.id, closing.why, closing);
  }
}

void LiveChannels::cut(uint64_t id, kj::StringPtr why) {
  KJ_IF_MAYBE (channel, live.find(id)) {
    if ((*channel)->cutWhy.size() == 0) cut(**channel, why);
  }
}

unsigned LiveChannels::cutIf(kj::FunctionParam<kj::Maybe<kj::StringPtr>(const ChannelEntry&)> why) {
  unsigned count = 0;
  for (auto& entry : live) {
    auto& channel = *entry.value;
    if (channel.cutWhy.size() > 0) continue;
    KJ_IF_MAYBE (reason, why(channel.entry)) {
      cut(channel, *reason);
      ++count;
    }
  }
  return count;
}

void LiveChannels::sessionGone(kj::StringPtr vm) {
  kj::Vector<uint64_t> over;
  for (auto& entry : live) {
    auto& channel = *entry.value;
    if (!channel.entry.concerns(vm)) continue;
    if (!channel.entry.isBetweenVms()) {
      over.add(entry.key);
    } else if (channel.cutWhy.size() == 0) {
      cut(channel, SESSION_ENDED);  // the other VM's session says what has passed
    }
  }
  for (auto id : over) finish(id, SESSION_ENDED, nullptr);
}

void LiveChannels::forEach(kj::FunctionParam<void(const ChannelEntry&)> what) const {
  for (auto& entry : live) what(entry.value->entry);
}

void LiveChannels::cut(Live& channel, kj::StringPtr why) {
  channel.cutWhy = why;
  channel.cutting = cutNow(channel).eagerlyEvaluate(
      [](kj::Exception&& e) { logEvent(LogLevel::ERROR, "internal", e.getDescription()); });
}

// T114
kj::Promise<void> LiveChannels::cutNow(Live& channel) {
  auto& timer = port.getTimer();
  // The sessions first: they reset their guests' ends, where an aborted socket might look like an orderly end.
  return handler.cutInSessions(channel.entry)
      .catch_([](kj::Exception&&) {})
      .exclusiveJoin(timer.afterDelay(CUT_BY_FORCE))
      .then([&channel, &timer]() {
        channel.abort();
        return timer.afterDelay(CLOSING_PATIENCE);
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
  auto& count = KJ_ASSERT_NONNULL(countByVm.find(channel->entry.vm));
  if (--count == 0) countByVm.erase(channel->entry.vm);
  channel->abort();
  handler.channelOver(channel->entry, channel->cutWhy.size() > 0 ? channel->cutWhy : why, closing);
}

void LiveChannels::taskFailed(kj::Exception&& exception) {
  if (exception.getType() == kj::Exception::Type::DISCONNECTED) return;
  logEvent(LogLevel::ERROR, "internal", exception.getDescription());
}

}  // namespace postern::host
