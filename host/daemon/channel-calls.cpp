#include "host/daemon/channel-calls.h"

#include "host/control/channel-id.h"
#include "host/control/failure.h"
#include "host/daemon/caller-rights.h"

namespace postern::host {

namespace {

using Kind = schema::Failure::Kind;

bool maySee(Daemon& daemon, const LocalCaller& who, kj::StringPtr vm) {
  if (who.isAdministrator) return true;
  KJ_IF_MAYBE (known, daemon.findVm(vm)) return daemon.decisions().isVisible(who, known->record());
  return false;
}

// T110
bool maySee(Daemon& daemon, const LocalCaller& who, const ChannelEntry& channel) {
  return channel.isConfirmed && maySee(daemon, who, channel.vm) &&
         (!channel.isBetweenVms() || maySee(daemon, who, channel.to));
}

kj::Vector<const ChannelEntry*> visibleChannels(Daemon& daemon, const LocalCaller& who, kj::StringPtr vm) {
  kj::Vector<const ChannelEntry*> shown;
  daemon.channelDesk().living().forEach([&](const ChannelEntry& channel) {
    if (shown.size() >= MAX_SHOWN_CHANNELS || (vm.size() > 0 && !channel.concerns(vm))) return;
    if (maySee(daemon, who, channel)) shown.add(&channel);
  });
  return shown;
}

void write(const ChannelEntry& channel, const LiveTraffic& traffic, kj::TimePoint now, schema::Channel::Builder to) {
  to.setId(channel.id);
  to.setFrom(channel.from());
  to.setTo(channel.target());
  to.setService(channel.service);
  to.setRule(channel.rule);
  to.setOpenForMilliseconds(uint64_t(kj::max(now - channel.opened, 0 * kj::SECONDS) / kj::MILLISECONDS));
  KJ_IF_MAYBE (passed, traffic.find(channel.id)) passed->write(to.initTraffic());
}

// What the sessions know that have made them.
kj::Promise<LiveTraffic> trafficOf(Daemon& daemon, kj::ArrayPtr<const ChannelEntry* const> channels) {
  kj::HashSet<kj::StringPtr> names;
  for (auto* channel : channels) names.upsert(channel->vm, [](auto&, auto&&) {});
  kj::Vector<kj::Promise<LiveTraffic>> asked;
  for (auto& name : names) {
    KJ_IF_MAYBE (vm, daemon.findVm(name)) asked.add(vm->session().channelTraffic());
  }
  return kj::joinPromises(asked.releaseAsArray()).then([](kj::Array<LiveTraffic> parts) {
    LiveTraffic all;
    for (auto& part : parts) {
      for (auto& entry : part) all.upsert(entry.key, entry.value, [](auto&, auto&&) {});
    }
    return all;
  });
}

}  // namespace

kj::Promise<void> listChannels(Daemon& daemon, kj::Own<const LocalCaller> who, ChannelsContext context) {
  kj::StringPtr vm = context.getParams().getVm();
  if (vm.size() > 0) {
    auto failure = context.getResults().initFailure();
    if (findVisible(daemon, *who, vm, failure) == nullptr) return kj::READY_NOW;
    context.getResults().disownFailure();
  }
  auto traffic = trafficOf(daemon, visibleChannels(daemon, *who, vm));
  return traffic.then([&daemon, context, who = kj::mv(who)](LiveTraffic traffic) mutable {
    auto shown = visibleChannels(daemon, *who, context.getParams().getVm());
    auto list = context.getResults().initChannels(static_cast<unsigned>(shown.size()));
    auto now = daemon.timer().now();
    for (unsigned i = 0; i < list.size(); ++i) write(*shown[i], traffic, now, list[i]);
  });
}

void listPorts(Daemon& daemon, const LocalCaller& who, PortsContext context) {
  kj::StringPtr name = context.getParams().getVm();
  auto results = context.getResults();
  kj::Vector<Vm*> shown;
  if (name.size() > 0) {
    KJ_IF_MAYBE (vm, findVisible(daemon, who, name, results.initFailure())) {
      shown.add(vm);
    } else {
      return;
    }
    results.disownFailure();
  } else {
    for (auto* vm : daemon.allVms()) {
      if (maySee(daemon, who, vm->record().name)) shown.add(vm);
    }
  }
  auto ports = results.initPorts(static_cast<unsigned>(shown.size()));
  unsigned rules = 0;
  for (unsigned i = 0; i < ports.size(); ++i) {
    shown[i]->describe(ports[i]);
    shown[i]->port().forEachRule([&](kj::StringPtr, const PassClaim&) { ++rules; });
  }
  auto list = results.initRules(kj::min(rules, MAX_SHOWN_RULES));
  unsigned next = 0;
  for (auto* vm : shown) {
    vm->port().forEachRule([&](kj::StringPtr rule, const PassClaim& passed) {
      if (next >= list.size()) return;
      auto out = list[next++];
      out.setRule(rule);
      out.setVm(vm->record().name);
      out.setOpened(passed.opened);
      out.setRefused(passed.refused);
      out.setActive(static_cast<uint32_t>(passed.active));
      passed.traffic.write(out.initTraffic());
    });
  }
}

void blockPort(Daemon& daemon, const LocalCaller& who, BlockPortContext context) {
  auto params = context.getParams();
  auto results = context.getResults();
  auto failure = results.initFailure();
  if (!isAllowed(daemon, who, nullptr, "admin.block", nullptr, failure)) return;
  KJ_IF_MAYBE (vm, findVisible(daemon, who, params.getVm(), failure)) {
    auto name = kj::str(vm->record().name);
    auto done = daemon.blockPort(name, params.getBlocked());
    KJ_IF_MAYBE (error, done.tryGet<FileError>()) return setFailure(failure, Kind::FAILED, error->text);
    daemon.record(who.name(), name, params.getBlocked() ? "port.block"_kj : "port.unblock"_kj, "", "done");
    results.disownFailure();
    results.setCut(done.get<unsigned>());
  }
}

void closeChannel(Daemon& daemon, const LocalCaller& who, CloseChannelContext context) {
  auto id = context.getParams().getId();
  auto failure = context.getResults().initFailure();
  if (!isAllowed(daemon, who, nullptr, "admin.block", nullptr, failure)) return;
  auto& living = daemon.channelDesk().living();
  KJ_IF_MAYBE (channel, living.find(id)) {
    if (maySee(daemon, who, *channel) && !living.isBeingCut(id)) {
      daemon.channelDesk().cutByHand(who.name(), id);
      context.getResults().disownFailure();
      return;
    }
  }
  setFailure(failure, Kind::INVALID,
             kj::str("there is no channel ", formatChannelId(id), "; `postern channel list` shows those that live"));
}

}  // namespace postern::host
