#include "host/daemon/channels.h"

#include <sys/resource.h>

#include "host/control/channel-id.h"
#include "host/log/log.h"

namespace postern::host {

namespace {

// T114
kj::Maybe<kj::StringPtr> whyForbidden(const ChannelEntry& channel, const policy::Decision& decision) {
  if (decision.reason == policy::Reason::BLOCKED_PORT) return "blocked"_kj;
  if (!decision.isAllowed()) return "policy"_kj;
  // It has its mirror for life. What is not confirmed is mirrored by a session that has not said how.
  if (channel.isConfirmed && ServiceTerms(decision).mirrorText() != channel.mirror) return "policy"_kj;
  return nullptr;
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
  if (!isOfOther) {
    entry.rule = kj::mv(claim.rule);
    entry.mirror = kj::mv(claim.mirror);
  }
  entry.opened = now - claim.openFor;
  entry.isConfirmed = !isOfOther;
  entry.isConfirmedByTarget = isOfOther || !entry.isBetweenVms();
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
  questions.begin(vm, kj::mv(prospect), answer);
}

void Channels::tick(kj::TimePoint now) {
  records.flush(now);
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
    if (isGranted) {
      bool hasRoom = live.hasRoomFor(entry.vm);
      if (hasRoom && records.opened(entry) == nullptr) {
        live.add(kj::mv(entry), nullptr);
        return recheck(id);
      }
      if (!hasRoom) records.refused(entry.from(), entry.vm, entry.service, entry.rule, "refused", 1);
      vm.port().refused();
      vm.showPort();
    }
  }
  tasks.add(vm.cutChannels({&id, 1}));
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
  if (claims.bad.size() > 0) tasks.add(vm.cutChannels(claims.bad));
  for (auto& claim : claims.good) adopt(vm, kj::mv(claim));
  // What another VM's session has claimed together with this one, which holds no such channel.
  kj::StringPtr name = vm.record().name;
  live.cutIf([name](const ChannelEntry& channel) -> kj::Maybe<kj::StringPtr> {
    if (!channel.concerns(name) || channel.isHeldBy(name)) return nullptr;
    return SESSION_ENDED;
  });
}

void Channels::adopt(ChannelVm& vm, ChannelClaim claim) {
  auto id = claim.id;
  auto entry = entryOf(vm.record().name, kj::mv(claim), port.getTimer().now());
  auto known = live.find(id);
  bool agrees = true;
  KJ_IF_MAYBE (channel, known) agrees = isSame(*channel, entry);
  bool counts = true;  // for this VM, and has not done so before
  KJ_IF_MAYBE (channel, known) counts = entry.isConfirmed && !channel->isConfirmed;
  if (!agrees || (counts && !live.hasRoomFor(entry.holder()))) {
    tasks.add(vm.cutChannels({&id, 1}));
    return;
  }
  KJ_IF_MAYBE (channel, known) {
    confirm(*channel, kj::mv(entry));
    if (live.isBeingCut(id)) tasks.add(vm.cutChannels({&id, 1}));  // it was not told, since it had not claimed it
  } else {
    adoptNew(kj::mv(entry));
  }
}

void Channels::confirm(ChannelEntry& known, ChannelEntry claimed) {
  if (claimed.isConfirmedByTarget) known.isConfirmedByTarget = true;
  if (!claimed.isConfirmed || known.isConfirmed) return;
  live.confirm(known);
  // Which the other VM's session does not know.
  known.rule = kj::mv(claimed.rule);
  known.mirror = kj::mv(claimed.mirror);
  recheck(known.id);
}

void Channels::adoptNew(ChannelEntry entry) {
  auto id = entry.id;
  bool isGone = false;
  KJ_IF_MAYBE (other, find(entry.isConfirmed ? entry.to : entry.vm)) {
    isGone = other->isAttached() && !entry.isHeldBy(other->record().name);
  }
  bool isOfHost = entry.caller == nullptr && !entry.isBetweenVms();
  if (isOfHost) entry.hostTarget = services.identityOf(entry.service);
  live.add(kj::mv(entry), nullptr);
  if (isGone) return live.cut(id, SESSION_ENDED);
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
      return host::whyForbidden(channel, decided.decision);
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
    return host::whyForbidden(channel, decision);
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

kj::Promise<void> Channels::cutInSessions(kj::ArrayPtr<const ChannelEntry* const> channels) {
  kj::HashMap<kj::StringPtr, kj::Vector<uint64_t>> byVm;
  for (auto* channel : channels) {
    for (kj::StringPtr name : {channel->vm.asPtr(), channel->to.asPtr()}) {
      if (!channel->isHeldBy(name)) continue;
      byVm.findOrCreate(name,
                        [&]() {
                          return kj::HashMap<kj::StringPtr, kj::Vector<uint64_t>>::Entry{name, {}};
                        })
          .add(channel->id);
    }
  }
  kj::Vector<kj::Promise<void>> answers;
  for (auto& entry : byVm) {
    KJ_IF_MAYBE (vm, find(entry.key)) answers.add(vm->cutChannels(entry.value).catch_([](kj::Exception&&) {}));
  }
  return kj::joinPromises(answers.releaseAsArray());
}

void Channels::channelOver(const ChannelEntry& channel, kj::StringPtr why, kj::Maybe<const ChannelClosing&> closing) {
  records.closed(channel, why, closing);
}

void Channels::disobeyed(const ChannelEntry& channel) {
  for (kj::StringPtr name : {channel.vm.asPtr(), channel.to.asPtr()}) {
    if (!channel.isHeldBy(name)) continue;  // what another VM's session says of it binds nobody
    KJ_IF_MAYBE (vm, find(name)) {
      vm->restartSession(kj::str("it did not end channel ", formatChannelId(channel.id), ", which was cut"));
    }
  }
}

void Channels::taskFailed(kj::Exception&& exception) {
  if (exception.getType() == kj::Exception::Type::DISCONNECTED) return;
  logEvent(LogLevel::ERROR, "internal", exception.getDescription());
}

}  // namespace postern::host
