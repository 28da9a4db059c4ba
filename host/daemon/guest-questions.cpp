#include "host/daemon/guest-questions.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>

#include "host/daemon/patience.h"
#include "host/daemon/policy-limits.h"
#include "host/local-rpc/local-rpc.h"
#include "transport/printable.h"

namespace postern::host {

namespace {

constexpr size_t MAX_SAID_BYTES = 200;

using Outcome = schema::ServeOutcome;

kj::String targetText(const ChannelQuestion& question) {
  return question.to.size() == 0 ? kj::str("host") : kj::str("vm:", question.to);
}

GuestDenial denialOf(const ChannelQuestion& question, kj::StringPtr rule, kj::StringPtr outcome, kj::StringPtr reason) {
  return {targetText(question), kj::str(question.service), kj::str(rule), outcome, reason};
}

// Null: reached.
kj::Maybe<kj::StringPtr> whyNot(Outcome outcome) {
  switch (outcome) {
    case Outcome::REACHED:
      return nullptr;
    case Outcome::NOT_CONNECTED:
      return "not-connected"_kj;
    case Outcome::DENIED:
      return "denied-by-guest"_kj;
    case Outcome::NOT_EXPORTED:
      return "not-exported"_kj;
    case Outcome::REFUSED:
      return "port-limit"_kj;
    case Outcome::NOT_REACHED:
      break;
  }
  return "not-reached"_kj;
}

// Of a session process. What it says is for the administrator.
HostServices::Refused whyNot(const kj::Exception& untrusted) {
  if (untrusted.getType() == kj::Exception::Type::DISCONNECTED) return {"session-ended"_kj, kj::String()};
  bool isTooMany = untrusted.getType() == kj::Exception::Type::OVERLOADED;
  return {isTooMany ? "too-many"_kj : "session-failed"_kj, printable(untrusted.getDescription(), MAX_SAID_BYTES)};
}

kj::AutoCloseFd copyOf(int fd) {
  return kj::AutoCloseFd(fcntl(fd, F_DUPFD_CLOEXEC, 3));
}

}  // namespace

class GuestQuestions::Slot {
 public:
  explicit Slot(Count& counted) : count(kj::addRef(counted)) { ++count->underWay; }
  ~Slot() noexcept(false) { --count->underWay; }
  KJ_DISALLOW_COPY(Slot);

 private:
  kj::Own<Count> count;
};

GuestQuestions::Prospect::Prospect(kj::Own<Slot> slot, kj::StringPtr vm, ChannelQuestion question, ServiceTerms terms)
    : slot(kj::mv(slot)), vm(kj::str(vm)), question(kj::mv(question)), terms(kj::mv(terms)) {}
GuestQuestions::Prospect::~Prospect() noexcept(false) {}

// T110
kj::Promise<kj::Maybe<kj::Own<GuestQuestions::Prospect>>> GuestQuestions::ask(ChannelVm& vm, ChannelQuestion question) {
  auto& name = vm.record().name;
  auto verdict = judge(vm, question);
  KJ_IF_MAYBE (denied, verdict.tryGet<Denied>()) {
    refuse(name, question, *denied);
    return kj::Maybe<kj::Own<Prospect>>();
  }
  auto& count = counts.findOrCreate(name, [&]() {
    return kj::HashMap<kj::String, kj::Own<Count>>::Entry{kj::str(name), kj::refcounted<Count>()};
  });
  auto& terms = verdict.get<ServiceTerms>();
  // T111
  if (terms.limits.callsPerHour == nullptr && !count->opens.tryTake(1, environment.port.getTimer().now())) {
    refuse(name, question, Denied{denialOf(question, terms.rule, "failed"_kj, "too-fast"_kj), /* byPolicy */ false});
    return kj::Maybe<kj::Own<Prospect>>();
  }
  auto prospect = kj::heap<Prospect>(kj::heap<Slot>(*count), name, kj::mv(question), kj::mv(terms));
  auto entering = enter(*prospect);
  return entering.then([this, prospect = kj::mv(prospect)](
                           kj::Maybe<NotReached> why) mutable -> kj::Promise<kj::Maybe<kj::Own<Prospect>>> {
    KJ_IF_MAYBE (refused, why) {
      // The session counts it for its port.
      auto& asked = *prospect;
      environment.records.refused(asked.vm, denialOf(asked.question, asked.terms.rule, "failed"_kj, refused->reason), 1,
                                  refused->text);
      return kj::Maybe<kj::Own<Prospect>>();
    }
    return reach(kj::mv(prospect));
  });
}

// T104
kj::Promise<kj::Maybe<GuestQuestions::NotReached>> GuestQuestions::enter(Prospect& prospect) {
  auto request = prospect.question.entrance.enterRequest();
  auto flow = request.initFlow();
  auto& terms = prospect.terms;
  flow.setId(prospect.question.id);
  flow.setRule(terms.rule);
  writeLimit(terms.limits, terms.rule, flow.initLimit());
  writePortLimit(environment.decisions.policy(), prospect.vm, flow.initPort());
  auto who = kj::str("vm:", prospect.vm);
  environment.mirrors.write(terms, prospect.vm, who, targetText(prospect.question),
                            [&]() { return flow.initMirror(); });
  auto entered = request.send().then([](auto answer) -> kj::Maybe<NotReached> {
    if (answer.getEntered()) return nullptr;
    return NotReached{"limit"_kj, kj::String()};
  });
  return answerOf(kj::mv(entered), ENTRANCE_DEADLINE);
}

// T110
kj::Promise<kj::Maybe<kj::Own<GuestQuestions::Prospect>>> GuestQuestions::reach(kj::Own<Prospect> prospect) {
  auto& asked = *prospect;
  return kj::evalNow([this, &asked]() { return askTarget(asked); })
      .catch_([](kj::Exception&& e) -> kj::Maybe<NotReached> {
        bool isTooMany = e.getType() == kj::Exception::Type::OVERLOADED;
        return NotReached{isTooMany ? "too-many"_kj : "not-reached"_kj, kj::str(e.getDescription())};
      })
      .then([this, prospect = kj::mv(prospect)](kj::Maybe<NotReached> why) mutable -> kj::Maybe<kj::Own<Prospect>> {
        KJ_IF_MAYBE (refused, why) return failed(*prospect, refused->reason, kj::mv(refused->text));
        return kj::mv(prospect);
      });
}

kj::Promise<kj::Maybe<GuestQuestions::NotReached>> GuestQuestions::askTarget(Prospect& prospect) {
  auto& to = prospect.question.to;
  if (to.size() == 0) return askHost(prospect);
  KJ_IF_MAYBE (target, environment.find(to)) return askVm(prospect, *target);
  return kj::Maybe<NotReached>(NotReached{"not-connected"_kj, kj::String()});
}

unsigned GuestQuestions::underWay(kj::StringPtr vm) const {
  KJ_IF_MAYBE (count, counts.find(vm)) return (*count)->underWay;
  return 0;
}

bool GuestQuestions::isRegistered(ChannelVm& vm) const {
  KJ_IF_MAYBE (known, environment.find(vm.record().name)) return known == &vm;
  return false;
}

// The order is of no consequence to the guest, who is told nothing; the reason is the first that holds.
GuestQuestions::Verdict GuestQuestions::judge(ChannelVm& vm, const ChannelQuestion& question) {
  auto denied = [&](kj::StringPtr reason, kj::StringPtr rule = "") -> Verdict {
    return Denied{denialOf(question, rule, "denied"_kj, reason), /* byPolicy */ true};
  };
  auto failed = [&](kj::StringPtr reason, kj::StringPtr rule = "") -> Verdict {
    return Denied{denialOf(question, rule, "failed"_kj, reason), /* byPolicy */ false};
  };
  auto& name = vm.record().name;
  if (!isRegistered(vm)) return denied("removed"_kj);  // its session has a moment yet
  if (environment.live.find(question.id) != nullptr) return failed("id-in-use"_kj);
  if (underWay(name) >= MAX_QUESTIONS || !environment.live.hasRoomFor(name)) return failed("too-many"_kj);
  if (vm.isQuarantined()) return denied("quarantined"_kj);
  kj::Maybe<ChannelVm&> target;
  kj::Maybe<const VmRecord&> targetRecord;
  if (question.to.size() > 0) {
    KJ_IF_MAYBE (found, environment.find(question.to)) {
      target = *found;
      targetRecord = found->record();
    } else {
      return denied("unknown-vm"_kj);
    }
  }
  auto decision = environment.decisions.decideService(vm.record(), targetRecord, question.service);
  if (!decision.isAllowed()) return denied(policy::word(decision.reason), decision.ruleId());
  KJ_IF_MAYBE (t, target) {
    if (t->isQuarantined()) return denied("quarantined"_kj);
    if (!t->isReachable()) return failed("not-connected"_kj, decision.ruleId());
  }
  return ServiceTerms(decision);
}

kj::Promise<kj::Maybe<GuestQuestions::NotReached>> GuestQuestions::askHost(Prospect& prospect) {
  auto opening = environment.services.open(prospect.question.service, kj::str("vm:", prospect.vm));
  return opening.then([&prospect](auto outcome) -> kj::Maybe<NotReached> {
    KJ_IF_MAYBE (refused, outcome.template tryGet<NotReached>()) return kj::mv(*refused);
    auto& opened = outcome.template get<HostServices::Opened>();
    prospect.socket = kj::mv(opened.socket);
    prospect.program = kj::mv(opened.program);
    return nullptr;
  });
}

kj::Promise<kj::Maybe<GuestQuestions::NotReached>> GuestQuestions::askVm(Prospect& prospect, ChannelVm& target) {
  auto& question = prospect.question;
  auto pair = newSocketPair(SOCK_SEQPACKET);
  prospect.socket = kj::mv(pair.first);
  // Rule and mirror are the asking session's to keep to.
  auto fill = [this, id = question.id, to = kj::str(question.to)](schema::Flow::Builder flow) {
    flow.setId(id);
    writePortLimit(environment.decisions.policy(), to, flow.initPort());
  };
  auto serving = target.serve({kj::mv(fill), kj::str(prospect.vm), kj::str(question.service), kj::mv(pair.second)});
  auto served = serving.then([](Outcome outcome) {
    return whyNot(outcome).map([](kj::StringPtr reason) { return NotReached{reason, kj::String()}; });
  });
  return answerOf(kj::mv(served), QUESTION_DEADLINE);
}

kj::Promise<kj::Maybe<GuestQuestions::NotReached>> GuestQuestions::answerOf(kj::Promise<kj::Maybe<NotReached>> session,
                                                                            kj::Duration deadline) {
  auto late = patience(environment.port.getTimer(), deadline).then([]() -> kj::Maybe<NotReached> {
    return NotReached{"timed-out"_kj, kj::String()};
  });
  return session.catch_([](kj::Exception&& e) -> kj::Maybe<NotReached> { return whyNot(e); })
      .exclusiveJoin(kj::mv(late));
}

kj::Maybe<kj::Own<GuestQuestions::Prospect>> GuestQuestions::failed(const Prospect& prospect, kj::StringPtr reason,
                                                                    kj::String detail) {
  refuse(prospect.vm, prospect.question,
         Denied{denialOf(prospect.question, "", "failed"_kj, reason), /* byPolicy */ false, kj::mv(detail)});
  return nullptr;
}

// T113
void GuestQuestions::begin(ChannelVm& vm, kj::Own<Prospect> prospect,
                           schema::SessionObserver::ConnectResults::Builder answer) {
  auto& question = prospect->question;
  prospect->slot = nullptr;
  auto verdict = judge(vm, question);
  KJ_IF_MAYBE (denied, verdict.tryGet<Denied>()) {
    return refuse(prospect->vm, question, *denied);
  }
  auto& terms = prospect->terms;
  if (verdict.get<ServiceTerms>() != terms) return (void)failed(*prospect, "policy-changed"_kj);
  auto copy = copyOf(prospect->socket);
  if (copy == nullptr) return (void)failed(*prospect, "too-many"_kj);
  ChannelEntry entry;
  entry.id = question.id;
  entry.vm = kj::str(prospect->vm);
  entry.to = kj::str(question.to);
  entry.service = kj::str(question.service);
  entry.rule = kj::str(terms.rule);
  entry.opened = environment.port.getTimer().now();
  entry.mirror = terms.mirrorText();
  if (!entry.isBetweenVms()) entry.hostTarget = environment.services.identityOf(question.service);
  KJ_IF_MAYBE (why, environment.records.opened(entry)) {
    return (void)failed(*prospect, "not-recorded"_kj, kj::mv(*why));
  }

  answer.setAllowed(true);
  answer.setSocket(newDescriptor(prospect->socket.release()));
  environment.live.add(kj::mv(entry), kj::mv(copy), kj::mv(prospect->program));
}

void GuestQuestions::refuseNames(ChannelVm& vm) {
  refuse(vm.record().name, {},
         Denied{GuestDenial{kj::String(), kj::String(), kj::String(), "denied"_kj, "bad-name"_kj}, true});
}

void GuestQuestions::refuse(kj::StringPtr name, const ChannelQuestion& question, const Denied& denied) {
  auto& denial = denied.denial;
  KJ_IF_MAYBE (vm, environment.find(name)) {
    if (denied.byPolicy) {
      // Its name only where a rule has denied; of a rule that allowed, it would be no help.
      vm->port().denied(denial.reason == "deny-rule" ? denial.rule.asPtr() : denial.reason);
    } else {
      vm->port().refused();
    }
    vm->showPort();
  }
  if (denied.byPolicy && question.to != name) {
    KJ_IF_MAYBE (target, environment.find(question.to)) {
      target->port().denied(denial.reason == "deny-rule" ? denial.rule.asPtr() : denial.reason);
      target->showPort();
    }
  }
  environment.records.refused(name, denial, 1, denied.detail);
}

}  // namespace postern::host
