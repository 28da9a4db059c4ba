#include "host/session/operation-log.h"

namespace postern::host {

using Kind = schema::Failure::Kind;

kj::StringPtr outcomeOf(schema::Failure::Reader failure) {
  switch (failure.getKind()) {
    case Kind::DENIED:
      return failure.getLock() == schema::Failure::Lock::GUEST ? "denied by the guest" : "denied";
    case Kind::NOT_CONNECTED:
      return "not connected";
    case Kind::TIMED_OUT:
      return "timed out";
    case Kind::REFUSED:
      return "refused";
    case Kind::INVALID:
      return "invalid";
    case Kind::FAILED:
    case Kind::LAPSED:
      break;
  }
  return "failed";
}

}  // namespace postern::host
