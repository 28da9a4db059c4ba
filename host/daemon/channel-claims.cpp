#include "host/daemon/channel-claims.h"

#include "host/metrics/bounded-number.h"
#include "protocol/policy/names.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

constexpr uint64_t MAX_MICROSECONDS = uint64_t(1) << 50;
constexpr uint64_t MAX_MILLISECONDS = uint64_t(1) << 40;
constexpr size_t MAX_WHY_BYTES = 100;
constexpr size_t MAX_MIRROR_BYTES = 256;  // a socket's path and a word
constexpr unsigned MAX_CALLER_GROUPS = 64;

constexpr kj::StringPtr WHYS[] = {"finished"_kj, "reset"_kj, "cut"_kj, "link-ended"_kj};

// The name of a target: "host" is empty, null is no name.
kj::Maybe<kj::String> targetFrom(kj::StringPtr untrusted) {
  if (untrusted == "host") return kj::String();
  if (!policy::isVmName(untrusted)) return nullptr;
  return kj::str(untrusted);
}

PassClaim passFrom(uint64_t opened, uint64_t refused, uint32_t active, schema::Traffic::Reader traffic) {
  return {bounded(opened), bounded(refused), active, parseTraffic(traffic)};
}

kj::Own<const LocalCaller> callerFrom(postern::schema::Caller::User::Reader untrusted) {
  auto caller = kj::atomicRefcounted<LocalCaller>();
  caller->uid = untrusted.getUid();
  if (policy::isAccountName(untrusted.getName())) caller->user = kj::str(untrusted.getName());
  kj::Vector<kj::String> groups;
  for (auto group : untrusted.getGroups()) {
    if (groups.size() < MAX_CALLER_GROUPS && policy::isAccountName(group)) groups.add(kj::str(group));
  }
  caller->groups = groups.releaseAsArray();
  return caller;
}

kj::Maybe<ChannelClaim> claimFrom(schema::LiveChannel::Reader untrusted) {
  if (!policy::isServiceName(untrusted.getService())) return nullptr;
  ChannelClaim claim;
  claim.id = untrusted.getId();
  claim.service = kj::str(untrusted.getService());
  if (policy::isRuleId(untrusted.getRule())) claim.rule = kj::str(untrusted.getRule());
  claim.mirror = printable(untrusted.getMirror(), MAX_MIRROR_BYTES);
  claim.openFor = int64_t(kj::min(untrusted.getOpenForMilliseconds(), MAX_MILLISECONDS)) * kj::MILLISECONDS;
  auto caller = untrusted.getCaller();
  if (untrusted.getAsked()) {
    claim.way = ChannelClaim::Way::ASKED;
    KJ_IF_MAYBE (to, targetFrom(untrusted.getTo())) {
      claim.to = kj::mv(*to);
      return kj::mv(claim);
    }
    return nullptr;
  }
  switch (caller.which()) {
    case postern::schema::Caller::VM:
      if (!policy::isVmName(caller.getVm())) return nullptr;
      claim.way = ChannelClaim::Way::FROM_VM;
      claim.from = kj::str(caller.getVm());
      return kj::mv(claim);
    case postern::schema::Caller::USER:
      claim.way = ChannelClaim::Way::FROM_HOST;
      claim.caller = callerFrom(caller.getUser());
      return kj::mv(claim);
  }
  return nullptr;
}

}  // namespace

ChannelTraffic ChannelTraffic::operator+(const ChannelTraffic& other) const {
  return {boundedSum(bytesThere, other.bytesThere), boundedSum(bytesBack, other.bytesBack),
          boundedSum(messagesThere, other.messagesThere), boundedSum(messagesBack, other.messagesBack),
          boundedSum(throttledNanoseconds, other.throttledNanoseconds)};
}

PassClaim PassClaim::operator+(const PassClaim& other) const {
  return {boundedSum(opened, other.opened), boundedSum(refused, other.refused), boundedSum(active, other.active),
          traffic + other.traffic};
}

void ChannelTraffic::write(schema::Traffic::Builder to) const {
  to.setBytesThere(bytesThere);
  to.setBytesBack(bytesBack);
  to.setMessagesThere(messagesThere);
  to.setMessagesBack(messagesBack);
  to.setThrottledNanoseconds(throttledNanoseconds);
}

ChannelTraffic parseTraffic(schema::Traffic::Reader untrusted) {
  return {bounded(untrusted.getBytesThere()), bounded(untrusted.getBytesBack()), bounded(untrusted.getMessagesThere()),
          bounded(untrusted.getMessagesBack()), bounded(untrusted.getThrottledNanoseconds())};
}

LiveTraffic parseLiveTraffic(capnp::List<schema::ChannelTraffic>::Reader untrusted) {
  LiveTraffic traffic;
  for (unsigned i = 0; i < kj::min(untrusted.size(), MAX_CHANNELS_PER_VM); ++i) {
    traffic.upsert(untrusted[i].getId(), parseTraffic(untrusted[i].getTraffic()), [](auto&, auto&&) {});
  }
  return traffic;
}

// T110
kj::Maybe<ChannelQuestion> parseQuestion(schema::SessionObserver::ConnectParams::Reader untrusted) {
  if (!policy::isServiceName(untrusted.getService())) return nullptr;
  KJ_IF_MAYBE (to, targetFrom(untrusted.getTo())) {
    return ChannelQuestion{untrusted.getId(), kj::mv(*to), kj::str(untrusted.getService()), untrusted.getEntrance()};
  }
  return nullptr;
}

ChannelClosing parseClosing(schema::SessionObserver::ChannelClosedParams::Reader untrusted) {
  ChannelClosing closing{untrusted.getId(), "ended"_kj,
                         int64_t(kj::min(untrusted.getMicroseconds(), MAX_MICROSECONDS)) * kj::MICROSECONDS,
                         parseTraffic(untrusted.getTraffic())};
  for (auto why : WHYS) {
    if (why == untrusted.getWhy()) closing.why = why;
  }
  return closing;
}

ChannelRefusal parseRefusal(schema::SessionObserver::ChannelRefusedParams::Reader untrusted) {
  kj::StringPtr service = untrusted.getService();
  return {untrusted.getGrant(), policy::isServiceName(service) ? kj::str(service) : kj::String(),
          printable(untrusted.getWhy(), MAX_WHY_BYTES), kj::max(untrusted.getCount(), 1u)};
}

PortClaim parsePortClaim(schema::SessionObserver::TrafficParams::Reader untrusted) {
  PortClaim claim;
  claim.counters = passFrom(untrusted.getOpened(), untrusted.getRefused(), untrusted.getActive(), untrusted.getOutOf());
  claim.mirrorDropped = bounded(untrusted.getMirrorDropped());
  auto rules = untrusted.getRules();
  kj::HashSet<kj::StringPtr> seen;
  for (unsigned i = 0; i < kj::min(rules.size(), MAX_CLAIMED_RULES); ++i) {
    kj::StringPtr rule = rules[i].getRule();
    if (!policy::isRuleId(rule) || seen.contains(rule)) continue;
    seen.insert(rule);
    claim.rules.add(RuleClaim{kj::str(rule), passFrom(rules[i].getOpened(), rules[i].getRefused(), rules[i].getActive(),
                                                      rules[i].getTraffic())});
  }
  return claim;
}

ChannelClaims parseChannels(capnp::List<schema::LiveChannel>::Reader untrusted) {
  ChannelClaims claims;
  for (unsigned i = 0; i < kj::min(untrusted.size(), MAX_CHANNELS_PER_VM); ++i) {
    KJ_IF_MAYBE (claim, claimFrom(untrusted[i])) {
      claims.good.add(kj::mv(*claim));
    } else {
      claims.bad.add(untrusted[i].getId());
    }
  }
  return claims;
}

}  // namespace postern::host
