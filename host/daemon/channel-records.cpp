#include "host/daemon/channel-records.h"

#include "host/control/channel-id.h"

namespace postern::host {

namespace {

constexpr unsigned REFUSALS_BURST = 60;
constexpr unsigned REFUSALS_PER_MINUTE = 60;

kj::String callOf(kj::StringPtr service) {
  return kj::str("service.", service.size() == 0 ? "*"_kj : service);
}

// The VM that a target is; empty: none.
kj::StringPtr vmOf(kj::StringPtr target) {
  return target.startsWith("vm:") ? target.slice(3) : ""_kj;
}

AuditField number(kj::StringPtr key, uint64_t value) {
  return {key, static_cast<int64_t>(value)};
}

}  // namespace

ChannelRecords::ChannelRecords(kj::Timer& timer, Records& records)
    : timer(timer), records(records), refusals(timer, REFUSALS_BURST, REFUSALS_PER_MINUTE) {}

Records::Hindrance ChannelRecords::opened(const ChannelEntry& channel) {
  auto who = channel.from(), to = channel.target(), call = callOf(channel.service), id = formatChannelId(channel.id);
  kj::Vector<AuditField> fields;
  fields.add(AuditField{"channel", id.asPtr()});
  fields.add(AuditField{"to", to.asPtr()});
  if (channel.mirror.size() > 0) fields.add(AuditField{"mirror", channel.mirror.asPtr()});
  AuditEvent line;
  line.who = who;
  line.vm = vmOf(to);
  line.call = call;
  line.rule = channel.rule;
  line.outcome = "channel.open";
  line.more = fields;
  return records.append(line);
}

void ChannelRecords::closed(const ChannelEntry& channel, kj::StringPtr why, kj::Maybe<const ChannelClosing&> closing) {
  auto who = channel.from(), to = channel.target(), call = callOf(channel.service), id = formatChannelId(channel.id);
  kj::Vector<AuditField> fields;
  fields.add(AuditField{"channel", id.asPtr()});
  fields.add(AuditField{"to", to.asPtr()});
  fields.add(AuditField{"why", why});
  if (!channel.isConfirmed) fields.add(AuditField{"claimed-by", to.asPtr()});
  AuditEvent line;
  line.who = who;
  line.vm = vmOf(to);
  line.call = call;
  line.rule = channel.rule;
  line.outcome = "channel.close";
  KJ_IF_MAYBE (told, closing) {
    auto& traffic = told->traffic;
    line.duration = told->took;
    fields.add(number("bytes-there", traffic.bytesThere));
    fields.add(number("bytes-back", traffic.bytesBack));
    fields.add(number("messages-there", traffic.messagesThere));
    fields.add(number("messages-back", traffic.messagesBack));
    if (traffic.throttledNanoseconds > 0) fields.add(number("throttled-us", traffic.throttledNanoseconds / 1000));
  } else {
    line.duration = timer.now() - channel.opened;
  }
  line.more = fields;
  records.append(line);
}

void ChannelRecords::cut(kj::StringPtr who, const ChannelEntry& channel) {
  auto to = channel.target(), id = formatChannelId(channel.id);
  const AuditField fields[] = {{"channel", id.asPtr()}};
  AuditEvent line;
  line.who = who;
  line.vm = vmOf(to);
  line.call = "channel.cut";
  line.outcome = "done";
  line.more = fields;
  records.append(line);
}

void ChannelRecords::refused(kj::StringPtr vm, const GuestDenial& denial, uint64_t times, kj::StringPtr detail) {
  if (denials.isFirst(timer.now(), vm, denial, times)) write(vm, denial, denial.outcome, detail);
}

void ChannelRecords::writeCount(kj::StringPtr vm, const GuestDenial& denial, uint64_t times) {
  write(vm, denial, kj::str(denial.outcome, " (", times, " more)"), "");
}

void ChannelRecords::write(kj::StringPtr vm, const GuestDenial& denial, kj::StringPtr outcome, kj::StringPtr detail) {
  auto who = kj::str("vm:", vm), call = callOf(denial.service);
  kj::Vector<AuditField> fields;
  if (denial.to.size() > 0) fields.add(AuditField{"to", denial.to.asPtr()});
  fields.add(AuditField{"reason", denial.reason});
  AuditEvent line;
  line.who = who;
  line.vm = vmOf(denial.to);
  line.call = call;
  line.rule = denial.rule;
  line.outcome = outcome;
  line.more = fields;
  records.append(line);
  auto of = denial.to.size() == 0 ? kj::String() : kj::str(" of ", denial.to);
  auto more = detail.size() == 0 ? kj::String() : kj::str(" (", detail, ")");
  auto kind = denial.outcome == "denied" ? "denied"_kj : "channel-failed"_kj;
  records.tell(vm, kind, kj::str(who, ": ", call, of, ": ", outcome, ": ", denial.reason, more), vmOf(denial.to));
}

void ChannelRecords::refused(kj::StringPtr who, kj::StringPtr vm, kj::StringPtr service, kj::StringPtr rule,
                             kj::StringPtr why, uint64_t times) {
  KJ_IF_MAYBE (leftOut, refusals.take(who)) {
    auto more = *leftOut + times - 1;
    records.record(who, vm, callOf(service), rule,
                   more == 0 ? kj::str(why) : kj::str(why, ", and ", more, " others that were not recorded"));
  }
}

void ChannelRecords::flush(kj::TimePoint now) {
  denials.flush(now,
                [this](kj::StringPtr vm, const GuestDenial& denial, uint64_t times) { writeCount(vm, denial, times); });
}

void ChannelRecords::flush(kj::StringPtr vm) {
  denials.flush(
      vm, [this](kj::StringPtr name, const GuestDenial& denial, uint64_t times) { writeCount(name, denial, times); });
}

}  // namespace postern::host
