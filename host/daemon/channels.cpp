#include "host/daemon/channels.h"

#include <sys/resource.h>

#include "host/control/channel-id.h"
#include "host/log/log.h"

namespace postern::host {

namespace {

kj::StringPtr whyDenied(const policy::Decision& decision) {
  return decision.reason == policy::Reason::BLOCKED_PORT ? "blocked"_kj : "policy"_kj;
}

bool isSame(const ChannelEntry& known, const ChannelEntry& claimed) {
  return known.vm == claimed.vm && known.to == claimed.to && known.service == claimed.service &&
         (known.caller == nullptr) == (claimed.caller == nullptr);
}

ChannelEntry entryOf(kj::StringPtr vm, ChannelClaim claim, kj::TimePoint now) {
  bool isOfOther = claim.way == ChannelClaim::Way::FROM_VM;
  ChannelEntry entry;
  entry.id = claim.id;
  entry.vm = isOfOther ? kj::mv(claim.from) : kj::str(vm);
  entry.to = isOfOther ? kj::str(vm) : kj::mv(claim.to);
  entry.caller = kj::mv(claim.caller);
  entry.service = kj::mv(claim.service);
  entry.rule = kj::mv(claim.rule);
  entry.opened = now - claim.openFor;
  entry.isConfirmed = !isOfOther;
  entry.isWritten = true;  // by an earlier posternd
  return entry;
}

// Each costs posternd a descriptor, and half of them are for everything else.
size_t affordableChannels() {
  struct rlimit files;
  if (getrlimit(RLIMIT_NOFILE, &files) != 0 || files.rlim_cur == RLIM_INFINITY) return MAX_LIVE_CHANNELS;
  return kj::min(MAX_LIVE_CHANNELS, size_t(files.rlim_cur) / 2);
}

}  // namespace

Channels::Channels(const Environment& environment, FindVm findVm)
    : environment(environment),
      port(environment.port),
      find(kj::mv(findVm)),
      records(port.getTimer(), environment.records),
      services(port, [](kj::StringPtr line) { logEvent(LogLevel::WARNING, "service-program", line); }),
      mirrors(port.getTimer(), environment.records),
      live(port, *this, affordableChannels()),
      questions({port, environment.decisions, services, mirrors, records, live, find}),
      tasks(*this) {}
Channels::~Channels() noexcept(false) {}

// What guests ask --------------------------------------------------------------------------------------------------

kj::Promise<kj::Maybe<kj::Own<Channels::Prospect>>> Channels::ask(ChannelVm& vm, kj::Maybe<ChannelQuestion> question) {
  KJ_IF_MAYBE (asked, question) return questions.ask(vm, kj::mv(*asked));
  questions.refuseNames(vm);
  return kj::Maybe<kj::Own<Prospect>>();
}

void Channels::begin(ChannelVm& vm, kj::Own<Prospect> prospect,
                     schema::SessionObserver::ConnectResults::Builder answer) {
  KJ_IF_MAYBE (id, questions.begin(vm, kj::mv(prospect), answer)) unwritten.push_back(*id);
}

void Channels::tick(kj::TimePoint now) {
  records.flush(now);
  while (!unwritten.empty()) {
    KJ_IF_MAYBE (channel, live.find(unwritten.front())) {
      if (now - channel->opened < WRITTEN_AFTER) return;
      writeOpened(*channel);
    }
    unwritten.pop_front();
  }
}

void Channels::writeOpened() {
  for (auto id : unwritten) {
    KJ_IF_MAYBE (channel, live.find(id)) writeOpened(*channel);
  }
  unwritten.clear();
}

void Channels::writeOpened(ChannelEntry& channel) {
  if (channel.isWritten) return;
  channel.isWritten = true;
  records.opened(channel);
}

// What sessions say ------------------------------------------------------------------------------------------------

void Channels::opened(ChannelVm& vm, uint64_t id, uint64_t grant, kj::StringPtr service) {
  KJ_IF_MAYBE (granted, environment.grants.find(grant)) {
    if (granted->vm != vm.record().name || live.find(id) != nullptr) return;
    ChannelEntry entry;
    entry.id = id;
    entry.vm = kj::str(granted->vm);
    entry.caller = granted->caller->addRef();
    entry.grant = grant;
    entry.service = kj::str(service);
    entry.opened = port.getTimer().now();
    bool isGranted = false;
    for (auto& one : granted->granted.services) {
      if (one.service != service) continue;
      isGranted = true;
      entry.rule = kj::str(one.rule);
      entry.mirror = kj::str(one.mirror);
    }
    if (isGranted && live.hasRoomFor(entry.vm)) {
      writeOpened(entry);
      live.add(kj::mv(entry), nullptr);
      return recheck(id);
    }
  }
  tasks.add(vm.cutChannel(id));
}

void Channels::refused(ChannelVm& vm, const ChannelRefusal& refusal) {
  auto& name = vm.record().name;
  if (refusal.grant == 0) {
    return records.refused(name, GuestDenial{kj::String(), kj::String(), kj::String(), "failed"_kj, "too-many"_kj},
                           refusal.count);
  }
  KJ_IF_MAYBE (granted, environment.grants.find(refusal.grant)) {
    if (granted->vm != name) return;
    kj::StringPtr rule = "";
    for (auto& one : granted->granted.services) {
      if (one.service == refusal.service) rule = one.rule;
    }
    records.refused(granted->caller->name(), name, refusal.service, rule, refusal.why, refusal.count);
  }
}

void Channels::closed(ChannelVm& vm, const ChannelClosing& closing) {
  live.closed(vm.record().name, closing);
}

void Channels::sessionGone(ChannelVm& vm) {
  live.sessionGone(vm.record().name);
  vm.port().sessionEnded();
  vm.showPort();
}

// T113
void Channels::adopt(ChannelVm& vm, ChannelClaims claims) {
  for (auto id : claims.bad) tasks.add(vm.cutChannel(id));
  for (auto& claim : claims.good) adopt(vm, kj::mv(claim));
}

void Channels::adopt(ChannelVm& vm, ChannelClaim claim) {
  auto id = claim.id;
  auto entry = entryOf(vm.record().name, kj::mv(claim), port.getTimer().now());
  KJ_IF_MAYBE (known, live.find(id)) {
    if (!isSame(*known, entry)) {
      tasks.add(vm.cutChannel(id));
    } else if (entry.isConfirmed && !known->isConfirmed) {
      known->isConfirmed = true;
      known->rule = kj::mv(entry.rule);  // which the other VM's session does not know
    }
    return;
  }
  if (!live.hasRoomFor(entry.vm)) {
    tasks.add(vm.cutChannel(id));
    return;
  }
  bool isOfHost = entry.caller == nullptr && !entry.isBetweenVms();
  if (isOfHost) entry.hostTarget = services.identityOf(entry.service);
  live.add(kj::mv(entry), nullptr);
  recheck(id);
}

// Cutting ----------------------------------------------------------------------------------------------------------

kj::Maybe<kj::StringPtr> Channels::whyForbidden(const ChannelEntry& channel) {
  auto vm = find(channel.vm);
  KJ_IF_MAYBE (own, vm) {
    if (own->isQuarantined()) return "quarantined"_kj;
    KJ_IF_MAYBE (caller, channel.caller) {
      auto call = kj::str(SERVICE_PREFIX, channel.service);
      auto decided = environment.decisions.decide(**caller, own->record(), call);
      if (decided.isGranted()) return nullptr;
      return whyDenied(decided.decision);
    }
    kj::Maybe<const VmRecord&> target;
    if (channel.isBetweenVms()) {
      KJ_IF_MAYBE (other, find(channel.to)) {
        if (other->isQuarantined()) return "quarantined"_kj;
        target = other->record();
      } else {
        return "removed"_kj;
      }
    } else if (channel.hostTarget.size() == 0 || services.identityOf(channel.service) != channel.hostTarget) {
      return "service-changed"_kj;
    }
    auto decision = environment.decisions.decideService(own->record(), target, channel.service);
    if (decision.isAllowed()) return nullptr;
    return whyDenied(decision);
  }
  return "removed"_kj;
}

unsigned Channels::recheck() {
  return live.cutIf([this](const ChannelEntry& channel) { return whyForbidden(channel); });
}

unsigned Channels::cutAllOf(kj::StringPtr vm, kj::StringPtr why) {
  return live.cutIf([vm, why](const ChannelEntry& channel) -> kj::Maybe<kj::StringPtr> {
    if (!channel.concerns(vm)) return nullptr;
    return why;
  });
}

void Channels::cutByHand(kj::StringPtr who, uint64_t id) {
  KJ_IF_MAYBE (channel, live.find(id)) {
    records.cut(who, *channel);
    live.cut(id, "closed by hand"_kj);
  }
}

void Channels::recheck(uint64_t id) {
  KJ_IF_MAYBE (channel, live.find(id)) {
    KJ_IF_MAYBE (why, whyForbidden(*channel)) live.cut(id, *why);
  }
}

void Channels::forget(kj::StringPtr vm) {
  records.flush(vm);
  questions.forget(vm);
}

kj::Promise<void> Channels::cutInSessions(const ChannelEntry& channel) {
  kj::Vector<kj::Promise<void>> answers;
  for (kj::StringPtr name : {channel.vm.asPtr(), channel.to.asPtr()}) {
    KJ_IF_MAYBE (vm, find(name)) answers.add(vm->cutChannel(channel.id).catch_([](kj::Exception&&) {}));
  }
  return kj::joinPromises(answers.releaseAsArray());
}

void Channels::channelOver(ChannelEntry& channel, kj::StringPtr why, kj::Maybe<const ChannelClosing&> closing) {
  if (why == "refused" && !channel.isWritten) {
    auto denial =
        GuestDenial{channel.target(), kj::str(channel.service), kj::str(channel.rule), "failed"_kj, "limit"_kj};
    return records.refused(channel.vm, denial);
  }
  writeOpened(channel);
  records.closed(channel, why, closing);
}

void Channels::disobeyed(const ChannelEntry& channel) {
  KJ_IF_MAYBE (vm, find(channel.vm)) {
    vm->restartSession(kj::str("it did not end channel ", formatChannelId(channel.id), ", which was cut"));
  }
}

void Channels::taskFailed(kj::Exception&& exception) {
  if (exception.getType() == kj::Exception::Type::DISCONNECTED) return;
  logEvent(LogLevel::ERROR, "internal", exception.getDescription());
}

}  // namespace postern::host
