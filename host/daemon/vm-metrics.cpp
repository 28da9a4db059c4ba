#include "host/daemon/vm-metrics.h"

#include "protocol/guest.capnp.h"

namespace postern::host {

namespace {

using Kind = schema::SessionObserver::Kind;
using Refused = schema::SessionObserver::Refused;
using postern::schema::Goodbye;

kj::StringPtr refusalName(uint16_t untrustedCode) {
  switch (static_cast<Refused>(untrustedCode)) {
    case Refused::KEYS:
      return "keys";
    case Refused::CLONED_IDENTITY:
      return "cloned-identity";
    case Refused::ROLLED_BACK:
      return "rolled-back";
    case Refused::OTHER:
      break;
  }
  return "other";
}

kj::StringPtr goodbyeName(uint16_t untrustedCode) {
  switch (static_cast<Goodbye>(untrustedCode)) {
    case Goodbye::SHUTDOWN:
      return "shutdown";
    case Goodbye::RESTART:
      return "restart";
    case Goodbye::SUSPEND:
      return "suspend";
    case Goodbye::AGENT_STOPPED:
      return "agent-stopped";
  }
  return "other";
}

}  // namespace

VmMetrics::VmMetrics() {
  handshakes.add({"accepted", "none"}, 0);
  for (auto reason : {"keys"_kj, "cloned-identity"_kj, "rolled-back"_kj, "token-reuse"_kj, "other"_kj}) {
    handshakes.add({"refused", reason}, 0);
  }
  for (auto reason : {"cut"_kj, "protocol-error"_kj}) losses.add({reason}, 0);
}

void VmMetrics::event(Kind kind, uint16_t untrustedCode) {
  auto protocolError = static_cast<uint16_t>(schema::SessionObserver::Loss::PROTOCOL_ERROR);
  switch (kind) {
    case Kind::CONNECTED:
      return handshakes.add({"accepted", "none"});
    case Kind::REFUSED:
      return handshakes.add({"refused", refusalName(untrustedCode)});
    case Kind::TOKEN_REUSE:
      return handshakes.add({"refused", "token-reuse"});
    case Kind::LOST:
      return losses.add({untrustedCode == protocolError ? "protocol-error"_kj : "cut"_kj});
    case Kind::GOODBYE:
      return goodbyes.add({goodbyeName(untrustedCode)});
    case Kind::ENROLLED:
      ++enrolments;
      return;
    case Kind::ROLLBACK:
      ++rollbacks;
      return;
    default:
      return;
  }
}

void VmMetrics::pinged(const PingReport& report) {
  pings.add(kj::arrayPtr(report.counts.data(), report.counts.size()), report.seconds);
  failedPings += report.failures;
}

}  // namespace postern::host
