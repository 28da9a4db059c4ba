#include "protocol/policy/rule.h"

#include <kj/debug.h>

namespace postern::policy {

kj::String KJ_STRINGIFY(const Party& party) {
  switch (party.kind) {
    case Party::Kind::USER:
      return kj::str("user:", party.name);
    case Party::Kind::HOST_GROUP:
      return kj::str("group:", party.name);
    case Party::Kind::HOST:
      return kj::str("host");
    case Party::Kind::VM:
      return kj::str(party.name);
    case Party::Kind::TAG:
      return kj::str("tag:", party.name);
    case Party::Kind::GROUP:
      return kj::str("@", party.name);
    case Party::Kind::ANY:
      return kj::str("any");
  }
  KJ_UNREACHABLE;
}

bool Limits::isEmpty() const {
  return rate == nullptr && burst == nullptr && peak == nullptr && open == nullptr && callsPerHour == nullptr &&
         bytes == nullptr;
}

bool Quotas::isEmpty() const {
  return bytes == nullptr && files == nullptr && depth == nullptr && !special;
}

kj::StringPtr kindName(Rule::Kind kind) {
  switch (kind) {
    case Rule::Kind::ALLOW:
      return "allow";
    case Rule::Kind::DENY:
      return "deny";
    case Rule::Kind::SEGMENT:
      return "segment";
  }
  KJ_UNREACHABLE;
}

}  // namespace postern::policy
