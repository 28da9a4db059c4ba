#include "protocol/policy/call.h"

#include <kj/debug.h>
#include <kj/vector.h>

#include "protocol/policy/names.h"
#include "protocol/policy/wording.h"

namespace postern::policy {

namespace {

struct Known {
  kj::StringPtr name;
  CallFamily family;
};
constexpr Known CALLS[] = {
    {"status.read"_kj, CallFamily::STATUS},    {"ping"_kj, CallFamily::PING},
    {"info.os"_kj, CallFamily::INFO},          {"info.network"_kj, CallFamily::INFO},
    {"info.filesystems"_kj, CallFamily::INFO}, {"info.users"_kj, CallFamily::INFO},
    {"power.shutdown"_kj, CallFamily::POWER},  {"power.restart"_kj, CallFamily::POWER},
    {"power.suspend"_kj, CallFamily::POWER},   {"file.get"_kj, CallFamily::FILE},
    {"file.put"_kj, CallFamily::FILE},         {"file.list"_kj, CallFamily::FILE},
    {"file.stat"_kj, CallFamily::FILE},        {"file.mkdir"_kj, CallFamily::FILE},
    {"file.remove"_kj, CallFamily::FILE},      {"admin.enroll"_kj, CallFamily::ADMIN},
    {"admin.remove"_kj, CallFamily::ADMIN},    {"admin.rekey"_kj, CallFamily::ADMIN},
    {"admin.export"_kj, CallFamily::ADMIN},    {"admin.block"_kj, CallFamily::ADMIN},
    {"admin.policy"_kj, CallFamily::ADMIN},    {"admin.audit"_kj, CallFamily::ADMIN},
    {"admin.events"_kj, CallFamily::ADMIN},
};
constexpr kj::StringPtr FAMILIES[CALL_FAMILIES] = {"status"_kj, "ping"_kj,    "info"_kj, "power"_kj,
                                                   "file"_kj,   "service"_kj, "admin"_kj};
constexpr kj::StringPtr SERVICE_PREFIX = "service."_kj;

// share.* is a family without names yet.
constexpr kj::StringPtr RESERVED[] = {"exec.run"_kj, "time.sync"_kj, "fs.freeze"_kj,
                                      "exec.*"_kj,   "time.*"_kj,    "fs.*"_kj};

bool isReserved(kj::StringPtr text) {
  for (auto name : RESERVED) {
    if (text == name) return true;
  }
  return text.startsWith("share.");
}

kj::String unknown(kj::StringPtr text) {
  if (text == "service") return kj::str("call 'service' lacks a name; write 'service.NAME' or 'service.*'");
  for (auto family : FAMILIES) {
    if (text == family) return kj::str("call ", quote(text), " is a family; write '", family, ".*' for all of it");
  }
  if (text == "ping.*") return kj::str("call 'ping.*' does not exist; write 'ping'");
  kj::Vector<kj::StringPtr> known;
  kj::Vector<kj::String> patterns;
  for (auto& call : CALLS) known.add(call.name);
  for (auto family : FAMILIES) patterns.add(kj::str(family, ".*"));
  for (auto& pattern : patterns) known.add(pattern);
  auto hint = didYouMean(text, known);
  if (hint.size() > 0) return kj::str("unknown call ", quote(text), hint);
  for (auto family : FAMILIES) {
    if (!text.startsWith(kj::str(family, "."))) continue;
    kj::Vector<kj::StringPtr> names;
    for (auto& call : CALLS) {
      if (call.name.startsWith(family)) names.add(call.name);
    }
    return kj::str("unknown call ", quote(text), "; there are ", kj::strArray(names, ", "));
  }
  return kj::str("unknown call ", quote(text),
                 "; write one of status.read, ping, info.*, power.*, file.*, service.NAME, admin.*");
}

}  // namespace

kj::Maybe<CallFamily> familyOf(kj::StringPtr call) {
  if (call.startsWith(SERVICE_PREFIX)) {
    if (isServiceName(call.slice(SERVICE_PREFIX.size()))) return CallFamily::SERVICE;
    return nullptr;
  }
  for (auto& known : CALLS) {
    if (call == known.name) return known.family;
  }
  return nullptr;
}

kj::StringPtr familyName(CallFamily family) {
  return FAMILIES[static_cast<size_t>(family)];
}

bool isCallable(CallFamily family, PartyKind caller, PartyKind target) {
  if (caller == PartyKind::VM) return family == CallFamily::SERVICE;
  return (family == CallFamily::ADMIN) == (target == PartyKind::HOST);
}

kj::OneOf<CallPattern, kj::String> parseCallPattern(kj::StringPtr text) {
  if (text == "*") return CallPattern{CallPattern::Kind::EVERY, CallFamily::STATUS, kj::heapString(text)};
  KJ_IF_MAYBE (family, familyOf(text)) return CallPattern{CallPattern::Kind::EXACT, *family, kj::heapString(text)};
  for (size_t i = 0; i < CALL_FAMILIES; ++i) {
    auto family = static_cast<CallFamily>(i);
    if (family != CallFamily::PING && text == kj::str(FAMILIES[i], ".*")) {
      return CallPattern{CallPattern::Kind::FAMILY, family, kj::heapString(text)};
    }
  }
  if (isReserved(text)) return kj::str("call ", quote(text), " is reserved, not available yet; leave it out");
  if (text.startsWith(SERVICE_PREFIX)) {
    return kj::str("bad service name in ", quote(text),
                   "; a name has 1 to 64 letters, digits, '-' and '_', or is '*' for every service");
  }
  return unknown(text);
}

}  // namespace postern::policy
