#include "host/daemon/daemon-metrics.h"

#include <array>

#include "protocol/policy/call.h"

namespace postern::host {

namespace {

// Seconds.
constexpr std::array<double, 10> LAG_BOUNDS = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.25, 1, 5};

// What a session process says of an operation (operationLog.h and its users), but for "failed: KIND".
constexpr kj::StringPtr OUTCOMES[] = {"done"_kj,      "accepted"_kj, "incomplete"_kj,          "denied"_kj,
                                      "timed out"_kj, "refused"_kj,  "denied by the guest"_kj, "not connected"_kj,
                                      "invalid"_kj,   "given up"_kj};

kj::StringPtr outcomeLabel(kj::StringPtr untrusted) {
  for (auto outcome : OUTCOMES) {
    if (untrusted == outcome) return outcome;
  }
  return untrusted.startsWith("failed") ? "failed"_kj : "other"_kj;
}

kj::StringPtr callLabel(kj::StringPtr untrusted) {
  if (untrusted == "info") return "info";  // of which parts, the operation does not say
  KJ_IF_MAYBE (family, policy::familyOf(untrusted)) {
    // Names of services are many.
    return *family == policy::CallFamily::SERVICE ? policy::familyName(*family) : untrusted;
  }
  return "other";
}

kj::StringPtr reasonOf(const TurnedAway& peer) {
  KJ_IF_MAYBE (refusal, peer.why.tryGet<Refusal>()) {
    switch (*refusal) {
      case Refusal::TOO_MANY_HALF_OPEN:
        return "too-many-half-open";
      case Refusal::TOO_OFTEN:
        return "too-often";
    }
  }
  return "stranger";
}

}  // namespace

DaemonMetrics::DaemonMetrics(kj::Timer& timer)
    : loopLag(kj::arrayPtr(LAG_BOUNDS.data(), LAG_BOUNDS.size())), lag(timer, loopLag) {
  for (auto outcome : {"allowed"_kj, "denied"_kj}) decisions.add({outcome}, 0);
  for (auto reason : {"stranger"_kj, "too-many-half-open"_kj, "too-often"_kj}) turnedAway.add({reason}, 0);
  denials.add({"none"}, 0);
}

void DaemonMetrics::operation(const OperationReport& report) {
  if (report.call == "ping") return;
  KJ_IF_MAYBE (files, report.files) {
    if (files->entry.size() > 0) return;
  }
  auto call = callLabel(report.call);
  operations.add({call, outcomeLabel(report.outcome)});
  if (report.bytes > 0) operationBytes.add({call}, report.bytes);
}

void DaemonMetrics::denied(kj::StringPtr rule) {
  decisions.add({"denied"});
  denials.add({rule.size() > 0 ? rule : "none"_kj});
}

void DaemonMetrics::turned(const TurnedAway& peer) {
  turnedAway.add({reasonOf(peer)});
}

}  // namespace postern::host
