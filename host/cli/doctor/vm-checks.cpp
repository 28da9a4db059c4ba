// The links of the chain that are one VM's, from its registration to its heartbeat and a call that both locks allow.

#include <errno.h>
#include <sys/stat.h>

#include "host/cli/doctor/patient.h"
#include "host/cli/failure-text.h"
#include "host/cli/quantity.h"
#include "host/cli/vm-state.h"
#include "host/health/reason.h"
#include "transport/checkup/machine.h"
#include "transport/endpoint.h"

namespace postern::cli {

namespace {

using host::Reason;

void lookAtRegister(Patient& patient, Checkup& out) {
  if (patient.daemon == nullptr) return;
  auto request = patient.run.control().control().showVmRequest();
  request.setName(patient.vmName);
  auto response = patient.run.await(request.send(), "posternd");
  if (response.hasFailure()) {
    return out.wrong(client::failureOf(response.getFailure()).text, patient.postern("vm list"));
  }
  auto settings = response.getVm().getSettings();
  out.ok(kj::str(settings.getTransport(), ", uuid ", settings.getUuid()));
  patient.shown = kj::mv(response);
}

// A VM that is to be seen.
template <void (*look)(Patient&, host::schema::Vm::Reader, Checkup&)>
void ofShown(Patient& patient, Checkup& out) {
  KJ_IF_MAYBE (shown, patient.shown) look(patient, shown->getVm(), out);
}

void lookAtEnrolment(Patient& patient, host::schema::Vm::Reader vm, Checkup& out) {
  if (vm.getEnrolled()) return out.ok(kj::str("guest key ", vm.getGuestFingerprint()));
  if (vm.getOfferPending()) {
    return out.wrong("its bundle is out, and no agent has used it yet",
                     patient.inGuest("postern-agent join BUNDLE; postern-agent doctor"));
  }
  out.wrong("it is not enrolled, and no bundle is out or its lifetime is over",
            patient.postern("vm rekey ", patient.vmName, " --force"));
}

void lookAtKeys(Patient& patient, host::schema::Vm::Reader, Checkup& out) {
  auto path = kj::str(patient.paths.vmFolder, '/', patient.vmName, ".state");
  struct stat about;
  if (lstat(path.cStr(), &about) != 0) return;
  if (!lookAtOwner({path, patient.daemonUser(), 0077}, out)) out.ok(kj::str(path, " is posternd's alone"));
}

// Of the socket that posternd makes for the guest.
kj::Maybe<kj::String> ownSocket(const Endpoint& endpoint) {
  KJ_IF_MAYBE (unixSocket, endpoint.tryGet<UnixEndpoint>()) return kj::str(unixSocket->path);
  KJ_IF_MAYBE (hybrid, endpoint.tryGet<HybridEndpoint>()) return hybrid->guestToHostPath();
  return nullptr;
}

kj::String folderOf(kj::StringPtr path) {
  return kj::heapString(path.slice(0, kj::max(path.findLast('/').orDefault(0), size_t(1))));
}

// Of a socket that posternd cannot listen at.
kj::String mendOwnSocket(Patient& patient, kj::StringPtr path) {
  auto folder = folderOf(path);
  auto user = userName(patient.daemonUser());
  if (access(folder.cStr(), F_OK) != 0) return kj::str("install -d -m 0700 -o ", user, ' ', shellWord(folder));
  struct stat about;
  if (lstat(path.cStr(), &about) == 0 && !S_ISSOCK(about.st_mode)) return kj::str("rm ", shellWord(path));
  return kj::str("ls -ld ", shellWord(folder), ' ', shellWord(path));
}

// Of QEMU's socket that posternd cannot connect to.
kj::String mendSocketOfVm(Patient& patient, kj::StringPtr path) {
  struct stat about;
  if (stat(path.cStr(), &about) != 0 || !S_ISSOCK(about.st_mode)) {
    return kj::str("start the VM; or ", patient.postern("vm set ", patient.vmName, " --transport serial:PATH"));
  }
  auto user = patient.daemonUser();
  bool mayUse = user == 0 || (about.st_uid == user && (about.st_mode & 0200) != 0) || (about.st_mode & 0002) != 0;
  if (!mayUse) return kj::str("chown ", userName(user), ' ', shellWord(path));
  return kj::str("start the VM");
}

kj::String mendLink(Patient& patient, const Endpoint& endpoint) {
  KJ_IF_MAYBE (path, ownSocket(endpoint)) return mendOwnSocket(patient, *path);
  KJ_SWITCH_ONEOF(endpoint) {
    KJ_CASE_ONEOF(serial, SerialEndpoint) return mendSocketOfVm(patient, serial.path);
    KJ_CASE_ONEOF(libvirt, LibvirtEndpoint) {
      if (access(patient.paths.libvirtSocket.cStr(), F_OK) != 0) return kj::str("systemctl start postern-libvirt");
      return kj::str("virsh dominfo ", shellWord(libvirt.domain), "; systemctl restart postern-libvirt");
    }
    KJ_CASE_ONEOF(vsock, VsockEndpoint) return kj::str("modprobe vhost_vsock; ", patient.restartPosternd());
    KJ_CASE_ONEOF_DEFAULT {
      return kj::String();
    }
  }
  KJ_UNREACHABLE;
}

void lookAtTransport(Patient& patient, host::schema::Vm::Reader vm, Checkup& out) {
  auto parsed = parseEndpoint(vm.getSettings().getTransport());
  if (!parsed.is<Endpoint>()) return;
  auto& endpoint = parsed.get<Endpoint>();
  if (vm.getLinkTrouble().size() > 0) return out.wrong(vm.getLinkTrouble(), mendLink(patient, endpoint));
  KJ_IF_MAYBE (path, ownSocket(endpoint)) {
    struct stat about;
    if (lstat(path->cStr(), &about) != 0 && errno == ENOENT) {
      return out.wrong(kj::str(*path, ": somebody has removed the socket where posternd listens for the guest"),
                       patient.restartPosternd());
    }
    return out.ok(kj::str("posternd listens at ", *path));
  }
  out.ok(kj::str("posternd has no trouble with ", toString(endpoint)));
}

void lookAtQmp(Patient& patient, host::schema::Vm::Reader vm, Checkup& out) {
  auto qmp = vm.getSettings().getQmp();
  if (vm.getQmpTrouble().size() > 0) {
    auto remedy = qmp.size() == 0 ? kj::str("virsh dominfo ", patient.vmName, "; systemctl restart postern-libvirt")
                                  : patient.postern("vm set ", patient.vmName, " --qmp PATH, or --qmp none");
    out.warning(vm.getQmpTrouble(), remedy);
  } else if (qmp.size() > 0) {
    out.ok(kj::str("QEMU is watched at ", qmp));
  }
}

void lookAtSession(Patient& patient, host::schema::Vm::Reader vm, Checkup& out) {
  if (vm.getSessionPid() != 0) return out.ok(kj::str("its process is ", vm.getSessionPid()));
  out.wrong("the host's process for it does not run", patient.postern("events ", patient.vmName));
}

// What mends a VM whose state has that reason. `vm` and `patient` are who it is about.
kj::String mendState(const Patient& patient, Reason reason) {
  auto& vm = patient.vmName;
  switch (reason) {
    case Reason::NOT_ENROLLED:
      return patient.inGuest("postern-agent join BUNDLE; postern-agent doctor");
    case Reason::NEVER_SEEN:
    case Reason::AGENT_STOPPED:
    case Reason::LINK_LOST:
    case Reason::PORT_CLOSED:
      return patient.inGuest("systemctl restart postern-agent; postern-agent doctor");
    case Reason::PROTOCOL_ERROR:
    case Reason::SESSION_DIED:
      return patient.postern("events ", vm);
    case Reason::KEYS_REJECTED:
    case Reason::ROLLED_BACK:
    case Reason::QUARANTINED:
      return kj::str(patient.postern("vm rekey ", vm, " --force"), '\n', patient.inGuest("postern-agent join BUNDLE"));
    case Reason::CLONED_IDENTITY:
      return patient.postern("enroll NAME-OF-THE-COPY --transport ENDPOINT");
    case Reason::SHUT_DOWN:
    case Reason::SUSPENDED:
    case Reason::VM_OFF:
      return kj::str("start the VM");
    case Reason::PAUSED:
      return kj::str("resume the VM");
    case Reason::LATE:
    case Reason::STARVED:
      return kj::str("give the guest CPU time");
    case Reason::SILENT:
      return kj::str("look at the guest's console; is it hung?");
    case Reason::UNKNOWN:
    case Reason::ON_TIME:
    case Reason::CONNECTED:
    case Reason::RECOVERING:
    case Reason::RESUMED:
    case Reason::RESTARTING:
    case Reason::STOPPING:
    case Reason::FROZEN:
      break;
  }
  return kj::str("wait a moment, and look again");
}

Reason reasonOf(kj::StringPtr word) {
  for (auto reason : host::allReasons()) {
    if (word == host::reasonName(reason)) return reason;
  }
  return Reason::UNKNOWN;
}

// What was last heard of a link that is down.
struct LinkNews {
  kj::String text;
  Reason reason = Reason::UNKNOWN;  // of the VM's state, where it is that
};

// Events that say why; with the state that follows from it, where that hides behind an earlier one.
struct LinkEvent {
  kj::StringPtr kind;
  Reason reason;
};
constexpr LinkEvent LINK_EVENTS[] = {
    {"refused"_kj, Reason::KEYS_REJECTED},
    {"token-reuse"_kj, Reason::KEYS_REJECTED},
    {"duplicate-identity"_kj, Reason::CLONED_IDENTITY},
    {"rollback"_kj, Reason::ROLLED_BACK},
    {"trouble"_kj, Reason::UNKNOWN},
    {"lost"_kj, Reason::UNKNOWN},
    {"goodbye"_kj, Reason::UNKNOWN},
};

class LinkListener final : public host::schema::EventSink::Server {
 public:
  explicit LinkListener(LinkNews& news) : news(news) {}
  kj::Promise<void> event(EventContext context) override {
    auto event = context.getParams().getEvent();
    if (event.getKind() == "connected") news = LinkNews();
    for (auto& known : LINK_EVENTS) {
      if (event.getKind() == known.kind) news = {kj::str("; ", known.kind, ": ", event.getText()), known.reason};
    }
    return kj::READY_NOW;
  }

 private:
  LinkNews& news;
};

LinkNews newsOfLink(Patient& patient) {
  constexpr uint32_t ENOUGH_EVENTS = 1000;
  LinkNews news;
  auto request = patient.run.control().control().eventsRequest();
  request.setVm(patient.vmName);
  request.setBacklog(ENOUGH_EVENTS);
  request.setSink(kj::heap<LinkListener>(news));
  patient.run.await(request.send(), "posternd");
  return news;
}

void lookAtLink(Patient& patient, host::schema::Vm::Reader vm, Checkup& out) {
  if (vm.getConnected()) return out.ok(kj::str("it is up; ", vm.getSessions(), " sessions so far"));
  auto news = newsOfLink(patient);
  auto reason = news.reason == Reason::UNKNOWN ? reasonOf(vm.getStatus().getReason()) : news.reason;
  out.wrong(kj::str("it is down", news.text), mendState(patient, reason));
}

void lookAtHeartbeat(Patient& patient, host::schema::Vm::Reader vm, Checkup& out) {
  auto state = stateOf(vm.getStatus());
  auto age =
      state.heartbeat.map([](kj::Duration age) { return kj::str("; the last came ", describeDuration(age), " ago"); });
  auto text = kj::str(state.colour, ": ", state.explanation, kj::mv(age).orDefault(kj::String()));
  if (state.colour == "green"_kj) return out.ok(text);
  auto remedy = mendState(patient, reasonOf(state.reason));
  state.colour == "yellow"_kj ? out.warning(text, remedy) : out.wrong(text, remedy);
}

void tellDenied(Patient& patient, const client::Failure& failure, Checkup& out) {
  bool byHost = failure.lock == client::Lock::HOST;
  auto where = byHost ? kj::str(patient.paths.policyFolder) : patient.inGuest("/etc/postern/agent.toml");
  auto then = byHost ? patient.postern("policy reload") : patient.inGuest("systemctl reload postern-agent");
  out.wrong(lineOf(failure),
            kj::str("to allow it, write this into ", where, ", then ", then, '\n', failure.suggestion));
}

// A ping, through both locks and all the way.
void lookAtPing(Patient& patient, host::schema::Vm::Reader vm, Checkup& out) {
  if (!vm.getConnected()) return;
  try {
    auto opened = patient.run.openVm(patient.vmName, {"ping"_kj});
    auto response = patient.run.await(opened->calls().pingRequest().send(), patient.vmName);
    patient.run.check(response, "");
    auto took = int64_t(kj::min(response.getLinkNanoseconds(), uint64_t(1) << 62)) * kj::NANOSECONDS;
    out.ok(kj::str("host and guest let this user ping it; ", describeLatency(took)));
  } catch (CommandFailure& failed) {
    if (failed.failure.kind == client::FailureKind::INTERRUPTED) throw;
    if (failed.failure.kind == client::FailureKind::DENIED) return tellDenied(patient, failed.failure, out);
    out.wrong(failed.failure.text, patient.postern("events ", patient.vmName));
  }
}

constexpr Check<Patient> CHECKS[] = {
    {"vm"_kj, lookAtRegister},        {"enrolment"_kj, ofShown<lookAtEnrolment>},
    {"keys"_kj, ofShown<lookAtKeys>}, {"transport"_kj, ofShown<lookAtTransport>},
    {"qmp"_kj, ofShown<lookAtQmp>},   {"session"_kj, ofShown<lookAtSession>},
    {"link"_kj, ofShown<lookAtLink>}, {"heartbeat"_kj, ofShown<lookAtHeartbeat>},
    {"ping"_kj, ofShown<lookAtPing>},
};

}  // namespace

kj::ArrayPtr<const Check<Patient>> vmChecks() {
  return CHECKS;
}

}  // namespace postern::cli
