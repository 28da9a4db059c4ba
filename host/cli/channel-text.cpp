#include "host/cli/channel-text.h"

#include <kj/encoding.h>

#include "host/cli/failure-text.h"
#include "host/cli/quantity.h"

namespace postern::cli {

namespace {

using host::schema::Channel;
using host::schema::Port;
using host::schema::Traffic;

constexpr uint64_t MAX_MILLISECONDS = uint64_t(1) << 43;
constexpr uint64_t MAX_NANOSECONDS = uint64_t(1) << 62;

Table::Cell cell(kj::String text, Tint tint = Tint::NONE) {
  return {kj::mv(text), tint};
}

kj::Duration openFor(Channel::Reader channel) {
  return int64_t(kj::min(channel.getOpenForMilliseconds(), MAX_MILLISECONDS)) * kj::MILLISECONDS;
}

kj::Duration throttled(Traffic::Reader traffic) {
  return int64_t(kj::min(traffic.getThrottledNanoseconds(), MAX_NANOSECONDS)) * kj::NANOSECONDS;
}

kj::String throttledText(Traffic::Reader traffic) {
  return traffic.getThrottledNanoseconds() == 0 ? kj::str("-") : describeDuration(throttled(traffic));
}

kj::String orDash(kj::StringPtr text) {
  return text.size() == 0 ? kj::str("-") : shown(text, 80);
}

kj::String lostText(Port::Reader port) {
  return port.getMirrorDropped() == 0 ? kj::str("-") : kj::str(port.getMirrorDropped());
}

Table::Cell stateOf(Port::Reader port) {
  if (!port.getBlocked()) return cell(kj::str("open"));
  return cell(kj::str(port.getBlockedByHand() ? "blocked by hand" : "blocked"), Tint::RED);
}

void writeTraffic(JsonWriter& json, Traffic::Reader traffic, kj::StringPtr there, kj::StringPtr back) {
  auto field = [&](kj::StringPtr kind, kj::StringPtr way, uint64_t number) { json.field(kj::str(kind, way), number); };
  field("bytes", there, traffic.getBytesThere());
  field("bytes", back, traffic.getBytesBack());
  field("messages", there, traffic.getMessagesThere());
  field("messages", back, traffic.getMessagesBack());
  json.field("throttledMs", milliseconds(throttled(traffic)));
}

}  // namespace

kj::String channelIdText(uint64_t id) {
  kj::byte bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = kj::byte(id >> (56 - 8 * i));
  return kj::encodeHex(bytes);
}

kj::Maybe<uint64_t> parseChannelId(kj::StringPtr text) {
  if (text.size() == 0 || text.size() > 16) return nullptr;
  uint64_t id = 0;
  for (char c : text) {
    int digit = c >= '0' && c <= '9'   ? c - '0'
                : c >= 'a' && c <= 'f' ? c - 'a' + 10
                : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                       : -1;
    if (digit < 0) return nullptr;
    id = id << 4 | uint64_t(digit);
  }
  return id;
}

kj::String tableOf(Channels channels, Colours colours) {
  Table table({"ID", "FROM", "TO", "SERVICE", "RULE", "OPEN FOR", "THERE", "BACK"});
  for (auto& channel : channels) {
    table.add(kj::arr(cell(channelIdText(channel.getId())), cell(shown(channel.getFrom(), 80)),
                      cell(shown(channel.getTo(), 80)), cell(shown(channel.getService(), 64)),
                      cell(orDash(channel.getRule())), cell(describeDuration(openFor(channel))),
                      cell(describeBytes(channel.getTraffic().getBytesThere())),
                      cell(describeBytes(channel.getTraffic().getBytesBack()))));
  }
  return table.format(colours);
}

kj::String tableOf(RuleTraffics rules, Colours colours) {
  Table table({"RULE", "VM", "OPENED", "REFUSED", "ACTIVE", "THERE", "BACK", "WAITED"});
  for (auto& rule : rules) {
    auto traffic = rule.getTraffic();
    table.add(kj::arr(cell(shown(rule.getRule(), 80)), cell(shown(rule.getVm(), 64)), cell(kj::str(rule.getOpened())),
                      cell(kj::str(rule.getRefused())), cell(kj::str(rule.getActive())),
                      cell(describeBytes(traffic.getBytesThere())), cell(describeBytes(traffic.getBytesBack())),
                      cell(throttledText(traffic))));
  }
  return table.format(colours);
}

kj::String tableOf(Ports ports, kj::ArrayPtr<const Pace> pace, Colours colours) {
  bool paced = pace.size() == ports.size() && ports.size() > 0;
  Table table({"VM", "PORT", "OPENED", "DENIED", "REFUSED", "ACTIVE", "OUT", "IN", paced ? "OUT NOW" : "WAITED",
               paced ? "IN NOW" : "LOST BY MIRROR", "LAST DENIED BY"});
  for (size_t i = 0; i < ports.size(); ++i) {
    auto port = ports[i];
    auto traffic = port.getOutOf();
    table.add(
        kj::arr(cell(shown(port.getVm(), 64)), stateOf(port), cell(kj::str(port.getOpened())),
                cell(kj::str(port.getDenied())), cell(kj::str(port.getRefused())), cell(kj::str(port.getActive())),
                cell(describeBytes(traffic.getBytesThere())), cell(describeBytes(traffic.getBytesBack())),
                cell(paced ? describeRate(pace[i].outBytes) : throttledText(traffic)),
                cell(paced ? describeRate(pace[i].inBytes) : lostText(port)), cell(orDash(port.getLastDeniedRule()))));
  }
  return table.format(colours);
}

void write(JsonWriter& json, Channels channels) {
  json.beginArray();
  for (auto& channel : channels) {
    json.beginObject().field("id", channelIdText(channel.getId())).field("from", channel.getFrom());
    json.field("to", channel.getTo()).field("service", channel.getService()).field("rule", channel.getRule());
    json.field("openForSeconds", milliseconds(openFor(channel)) / 1000);
    writeTraffic(json, channel.getTraffic(), "There", "Back");
    json.endObject();
  }
  json.endArray();
}

void write(JsonWriter& json, Ports ports) {
  json.beginArray();
  for (auto& port : ports) {
    json.beginObject().field("vm", port.getVm()).field("blocked", port.getBlocked());
    json.field("blockedByHand", port.getBlockedByHand()).field("opened", port.getOpened());
    json.field("denied", port.getDenied()).field("refused", port.getRefused()).field("active", port.getActive());
    writeTraffic(json, port.getOutOf(), "Out", "In");
    json.field("lastDeniedRule", port.getLastDeniedRule()).field("mirrorDropped", port.getMirrorDropped());
    json.endObject();
  }
  json.endArray();
}

void write(JsonWriter& json, RuleTraffics rules) {
  json.beginArray();
  for (auto& rule : rules) {
    json.beginObject().field("rule", rule.getRule()).field("vm", rule.getVm()).field("opened", rule.getOpened());
    json.field("refused", rule.getRefused()).field("active", rule.getActive());
    writeTraffic(json, rule.getTraffic(), "There", "Back");
    json.endObject();
  }
  json.endArray();
}

}  // namespace postern::cli
