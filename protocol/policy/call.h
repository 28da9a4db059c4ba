#pragma once
// Calls: the dotted names of everything that can be asked, who may be the caller and who the target at all, and the
// patterns that rules name them by. The one list of what exists; what is reserved is refused by name until it exists.

#include <kj/common.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <stdint.h>

namespace postern::policy {

enum class CallFamily : uint8_t { STATUS, PING, INFO, POWER, FILE, SERVICE, ADMIN };
constexpr size_t CALL_FAMILIES = 7;

// The family of an exact call that exists ("power.restart", "service.http"); null for everything else, patterns and
// reserved calls too. Does not allocate.
kj::Maybe<CallFamily> familyOf(kj::StringPtr call);
kj::StringPtr familyName(CallFamily family);  // "power"

// Whether such calls carry a path, which args.path can bound.
inline bool hasPath(CallFamily family) {
  return family == CallFamily::FILE;
}

enum class PartyKind : uint8_t { HOST, VM };  // a caller on the host, or the host as the target; a VM as either

// What can be asked at all, whatever the policy: of a VM by a caller on the host everything but admin.*; of the host by
// a caller on the host admin.*; of the host and of a VM by a VM service.*.
bool isCallable(CallFamily family, PartyKind caller, PartyKind target);

struct CallPattern {
  enum class Kind : uint8_t { EXACT, FAMILY, EVERY };
  Kind kind;
  CallFamily family;  // not for EVERY
  kj::String text;    // as written: "power.shutdown", "power.*", "*"

  bool covers(kj::StringPtr call, CallFamily callFamily) const {
    return kind == Kind::EVERY || (family == callFamily && (kind == Kind::FAMILY || text == call));
  }
};

// A pattern, or what is wrong with the text and what to write instead.
kj::OneOf<CallPattern, kj::String> parseCallPattern(kj::StringPtr text);

}  // namespace postern::policy
