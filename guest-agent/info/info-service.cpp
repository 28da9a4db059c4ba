#include "guest-agent/info/info-service.h"

#include <capnp/message.h>
#include <kj/debug.h>
#include <kj/refcount.h>

#include "guest-agent/bounded-text.h"
#include "guest-agent/info/info-check.h"
#include "guest-agent/info/probe.h"

namespace postern::guest {

namespace {

// What the broker needs on top of a part's deadline, before it counts as hanging itself.
constexpr auto BROKER_TIME = 3 * kj::SECONDS;
// Calls that wait for one part before those that were dropped are looked for.
constexpr size_t MANY_WAITING = 64;

}  // namespace

// What a probe came to; shared by all calls that wait for it.
struct InfoService::Finding : kj::Refcounted {
  using Checked = kj::Own<capnp::MallocMessageBuilder>;
  struct TimedOut {
    uint32_t milliseconds;
  };
  struct Failed {
    kj::String text;
  };
  kj::OneOf<Checked, TimedOut, Failed> result;
};

namespace {

// schema::Info's parts are of different types with the same methods.
template <typename Call>
auto withPart(schema::Info::Builder info, Probe part, Call call) {
  switch (part) {
    case Probe::OS:
      return call(info.initOs());
    case Probe::NETWORK:
      return call(info.initNetwork());
    case Probe::FILESYSTEMS:
      return call(info.initFilesystems());
    case Probe::USERS:
      return call(info.initUsers());
  }
  KJ_UNREACHABLE;
}

void copyValue(schema::Info::Builder info, Probe part, schema::Info::Reader from) {
  switch (part) {
    case Probe::OS:
      return info.setOs(from.getOs());
    case Probe::NETWORK:
      return info.setNetwork(from.getNetwork());
    case Probe::FILESYSTEMS:
      return info.setFilesystems(from.getFilesystems());
    case Probe::USERS:
      return info.setUsers(from.getUsers());
  }
  KJ_UNREACHABLE;
}

}  // namespace

InfoService::InfoService(BrokerClient& broker, kj::Timer& timer, kj::Array<kj::String> features,
                         kj::Duration partDeadline)
    : broker(broker), timer(timer), features(kj::mv(features)), partDeadline(partDeadline), probes(*this) {}

kj::Promise<void> InfoService::info(uint32_t what, Decide& decide, schema::GuestCalls::InfoResults::Builder results) {
  auto info = results.initInfo();
  info.setAgentVersion(POSTERN_VERSION);
  auto list = info.initFeatures(unsigned(features.size()));
  for (unsigned i = 0; i < list.size(); ++i) list.set(i, features[i]);

  kj::Vector<kj::Promise<void>> all;
  kj::Maybe<Denial> denied;
  bool anyAllowed = false;
  for (auto& part : parts) {
    if ((what & uint32_t(part.probe)) == 0) continue;
    KJ_IF_MAYBE (denial, decide(kj::str("info.", probeName(part.probe)))) {
      withPart(info, part.probe, [&](auto builder) { fill(builder.initRefused(), *denial); });
      if (denied == nullptr) denied = kj::mv(*denial);
      continue;
    }
    anyAllowed = true;
    all.add(find(part).then([info, probe = part.probe](kj::Own<Finding> found) mutable {
      KJ_SWITCH_ONEOF(found->result) {
        KJ_CASE_ONEOF(checked, Finding::Checked) {
          copyValue(info, probe, checked->getRoot<schema::Info>().asReader());
        }
        KJ_CASE_ONEOF(timedOut, Finding::TimedOut) {
          withPart(info, probe, [&](auto builder) { builder.setTimedOut(timedOut.milliseconds); });
        }
        KJ_CASE_ONEOF(failed, Finding::Failed) {
          withPart(info, probe, [&](auto builder) {
            auto refusal = builder.initRefused();
            refusal.setReason(schema::Refusal::Reason::FAILED);
            refusal.setDetail(failed.text);
          });
        }
      }
    }));
  }
  KJ_IF_MAYBE (denial, denied) {
    if (!anyAllowed) fill(results.initRefusal(), *denial);
  }
  return kj::joinPromises(all.releaseAsArray());
}

kj::Promise<kj::Own<InfoService::Finding>> InfoService::find(Part& part) {
  if (part.waiting.size() >= MANY_WAITING) {
    kj::Vector<kj::Own<kj::PromiseFulfiller<kj::Own<Finding>>>> still;
    for (auto& one : part.waiting) {
      if (one->isWaiting()) still.add(kj::mv(one));
    }
    part.waiting = kj::mv(still);
  }
  auto found = kj::newPromiseAndFulfiller<kj::Own<Finding>>();
  part.waiting.add(kj::mv(found.fulfiller));
  if (!part.running) {
    part.running = true;
    probes.add(runProbe(part));
  }
  return kj::mv(found.promise);
}

kj::Promise<void> InfoService::runProbe(Part& part) {
  using Probed = kj::OneOf<kj::Array<kj::byte>, ProbeTimedOut, BrokerRefusal>;
  auto begin = timer.now();
  return broker.probe(part.probe, partDeadline)
      .exclusiveJoin(timer.afterDelay(partDeadline + BROKER_TIME).then([]() -> Probed { return ProbeTimedOut{}; }))
      .then(
          [this, &part, begin](Probed probed) {
            auto finding = kj::refcounted<Finding>();
            KJ_SWITCH_ONEOF(probed) {
              KJ_CASE_ONEOF(bytes, kj::Array<kj::byte>) {
                KJ_IF_MAYBE (checked, checkInfo(part.probe, bytes)) {
                  finding->result = kj::mv(*checked);
                } else {
                  finding->result = Finding::Failed{kj::str("the probe's answer is malformed")};
                }
              }
              KJ_CASE_ONEOF(timedOut, ProbeTimedOut) {
                finding->result = Finding::TimedOut{uint32_t((timer.now() - begin) / kj::MILLISECONDS)};
              }
              KJ_CASE_ONEOF(refused, BrokerRefusal) {
                finding->result = Finding::Failed{boundedText(refused.text, 512)};
              }
            }
            part.running = false;
            auto waiting = kj::mv(part.waiting);
            for (auto& one : waiting) one->fulfill(kj::addRef(*finding));
          },
          [&part](kj::Exception&& exception) {
            part.running = false;
            auto waiting = kj::mv(part.waiting);
            for (auto& one : waiting) one->reject(kj::cp(exception));
          });
}

void InfoService::taskFailed(kj::Exception&&) {
  KJ_UNREACHABLE;  // runProbe() takes every failure to those who wait
}

}  // namespace postern::guest
