#include "guest-agent/doctor/doctor.h"

#include <errno.h>
#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest-agent/agent/configuration.h"
#include "guest-agent/agent/host-finder.h"
#include "guest-agent/agent/lock-file.h"
#include "guest-agent/agent/run-as.h"
#include "guest-agent/doctor/processes.h"
#include "guest-agent/identity/bundle-search.h"
#include "guest-agent/identity/machine.h"
#include "guest-agent/identity/stored-identity.h"
#include "transport/checkup/machine.h"

namespace postern::guest {

namespace {

constexpr kj::StringPtr UNIT_LINK = "/etc/systemd/system/multi-user.target.wants/postern-agent.service"_kj;
constexpr kj::StringPtr NEW_BUNDLE = "on the host: postern vm rekey VM --force; here: "_kj;

// What is looked at, with what earlier checks have learnt for later ones.
class Patient {
 public:
  explicit Patient(const DoctorOptions& options) : options(options), paths(options.root) {}
  KJ_DISALLOW_COPY(Patient);

  const DoctorOptions& options;
  const Paths paths;
  Settings settings;
  kj::Maybe<uid_t> agentUser;  // null: not known
  kj::Vector<FoundBundle> bundles;
  kj::Maybe<kj::String> idlePort;  // the link's port, which nobody has open
  kj::Maybe<pid_t> broker;

  kj::StringPtr configPath() const { return options.config.orDefault(paths.config); }
  kj::String agent(kj::StringPtr words) const {
    if (options.root.size() == 0) return kj::str("postern-agent ", words);
    return kj::str("postern-agent --root ", shellWord(options.root), ' ', words);
  }
  kj::String service(kj::StringPtr verb) const {
    return options.root.size() == 0 ? kj::str("systemctl ", verb, " postern-agent") : agent("&");
  }
};

void lookAtConfig(Patient& patient, Checkup& out) {
  auto path = patient.configPath();
  auto read = readConfiguration(patient.paths, patient.options.config);
  KJ_IF_MAYBE (errors, read.tryGet<PolicyErrors>()) {
    auto remedy = kj::str("edit that line; ", patient.agent("--check-config"), "; ", patient.service("restart"));
    for (auto& line : errors->lines) out.wrong(line, remedy);
    return;
  }
  auto& configuration = read.get<Configuration>();
  patient.settings = kj::mv(configuration.settings);
  if (lookAtOwner({path, geteuid(), 0022}, out)) return;
  if (configuration.policyFile.size() > 0) return out.ok(kj::str(configuration.policyFile, " is good"));
  out.ok(kj::str("there is no ", path, ", and no grants came with a bundle: all is denied but heartbeats"));
}

void lookAtUser(Patient& patient, Checkup& out) {
  auto found = findRunAs(patient.settings.user.map([](kj::String& name) -> kj::StringPtr { return name; }));
  KJ_IF_MAYBE (error, found.tryGet<RunAsError>()) {
    return out.wrong(error->text, kj::str("useradd --system ", patient.settings.user.orDefault(kj::str())));
  }
  auto& runAs = found.get<RunAs>();
  patient.agentUser = runAs.uid;
  if (runAs.warning.size() > 0) return out.warning(runAs.warning, kj::str("useradd --system ", DEFAULT_AGENT_USER));
  out.ok(kj::str("the agent runs as ", userName(runAs.uid)));
}

void lookAtBundles(Patient& patient, Checkup& out) {
  auto search = searchBundles(patient.paths, patient.options.bundleFile, patient.options.credentials);
  auto remedy = kj::str(NEW_BUNDLE, patient.agent("join FILE"));
  for (auto& problem : search.problems) out.warning(problem, remedy);
  (void)lookAtOwner({patient.paths.bundle, geteuid(), 0077}, out);
  for (auto& found : search.found) {
    out.ok(kj::str("a bundle for VM ", found.bundle->vmName, " in ", found.from));
  }
  patient.bundles = kj::mv(search.found);
}

void tellNoIdentity(Patient& patient, Checkup& out) {
  if (patient.bundles.empty()) {
    return out.wrong("this guest is not enrolled, and there is no bundle",
                     kj::str(NEW_BUNDLE, patient.agent("join FILE")));
  }
  out.warning("this guest is not enrolled yet; it has a bundle", patient.service("restart"));
}

void lookAtIdentity(Patient& patient, Checkup& out) {
  auto& path = patient.paths.stateFile;
  if (lookAtOwner({path, patient.agentUser, 0077}, out)) return;
  auto stored = readStoredIdentity(patient.paths);
  auto anew = kj::str(NEW_BUNDLE, patient.agent("join --force FILE"));
  KJ_SWITCH_ONEOF(stored) {
    KJ_CASE_ONEOF(none, NoIdentity) return tellNoIdentity(patient, out);
    KJ_CASE_ONEOF(trouble, IdentityTrouble) {
      bool mayNot = trouble.why == IdentityTrouble::Why::UNREADABLE && geteuid() != 0;
      return mayNot ? out.ok(kj::str(path, " is not for this user to read")) : out.wrong(trouble.text, anew);
    }
    KJ_CASE_ONEOF(state, kj::Own<GuestState>) {
      if (!Machine::read(patient.paths).made(state->machine)) {
        return out.wrong(kj::str(path, ": it was made on another machine, of which this one is a copy"), anew);
      }
      if (state->linkSecret == nullptr) return tellNoIdentity(patient, out);
      return out.ok(kj::str("enrolled as VM ", toString(state->vm)));
    }
  }
  KJ_UNREACHABLE;
}

// Of the port's device, which one program at a time may have open.
void lookAtHolder(Patient& patient, kj::StringPtr path, Checkup& out) {
  KJ_IF_MAYBE (holder, whoHasOpen(path)) {
    auto name = processName(*holder);
    bool isOurs = name.startsWith("postern-agent");
    if (isOurs) return out.ok(kj::str(path, ", held by postern-agent (pid ", *holder, ')'));
    return out.wrong(kj::str(path, ": ", name, " (pid ", *holder, ") has it open, and it serves one program alone"),
                     kj::str("kill ", *holder));
  }
  patient.idlePort = kj::str(path);
  bool mayUse = access(path.cStr(), R_OK | W_OK) == 0;
  if (mayUse || errno != EACCES) return out.ok(path);
  out.wrong(kj::str(path, ": this user may not use it"), kj::str("chmod ug+rw ", shellWord(path)));
}

void lookAtTransport(Patient& patient, Checkup& out) {
  auto endpoint = findHost(patient.paths, patient.options.connect, patient.settings, patient.bundles);
  KJ_IF_MAYBE (found, endpoint) {
    kj::StringPtr path;
    KJ_IF_MAYBE (serial, found->tryGet<SerialEndpoint>()) path = serial->path;
    KJ_IF_MAYBE (unixSocket, found->tryGet<UnixEndpoint>()) path = unixSocket->path;
    if (path.size() == 0) return out.ok(toString(*found));
    if (access(path.cStr(), F_OK) != 0) {
      return out.wrong(kj::str(path, ": it is not there"), found->is<SerialEndpoint>()
                                                               ? "modprobe virtio_console"
                                                               : "on the host: systemctl start posternd");
    }
    if (found->is<SerialEndpoint>()) return lookAtHolder(patient, path, out);
    return out.ok(toString(*found));
  }
  out.wrong(hostMissing(patient.paths), "modprobe virtio_console; modprobe vmw_vsock_virtio_transport");
}

void lookAtBroker(Patient& patient, Checkup& out) {
  patient.broker = lockHolder(patient.paths.lock);
  KJ_IF_MAYBE (pid, patient.broker) return out.ok(kj::str("it runs, pid ", *pid));
  bool mayNot = access(patient.paths.lock.cStr(), F_OK) == 0 && access(patient.paths.lock.cStr(), W_OK) != 0;
  if (mayNot) return out.ok("it is not for this user to see whether it runs");
  out.wrong("it does not run", patient.service("start"));
}

void lookAtAgent(Patient& patient, Checkup& out) {
  KJ_IF_MAYBE (broker, patient.broker) {
    KJ_IF_MAYBE (pid, agentProcessOf(*broker)) return out.ok(kj::str("it runs, pid ", *pid));
    out.wrong("the broker runs, and no agent", patient.options.root.size() == 0 ? kj::str("journalctl -u postern-agent")
                                                                                : kj::str("kill -HUP ", *broker));
  }
}

// Both name the program; with auditd it is the journal's audit lines, not the kernel's, that have it.
constexpr kj::StringPtr ALLOW_WHAT_IS_DENIED =
    "journalctl --boot --grep='denied.*postern.agent'; allow what is denied there"_kj;

// AppArmor and SELinux refuse what root may do, too, and no mode of a file shows it.
void lookAtConfinement(Patient& patient, Checkup& out) {
  kj::Maybe<kj::String> confinement;
  KJ_IF_MAYBE (pid, patient.broker) confinement = confinementOf(*pid);
  KJ_IF_MAYBE (who, confinement) {
    KJ_IF_MAYBE (port, patient.idlePort) {
      return out.wrong(kj::str(*who, ", and nobody is seen to have ", *port, " open"), ALLOW_WHAT_IS_DENIED);
    }
    out.ok(*who);
  }
}

void lookAtKernelHere(Patient&, Checkup& out) {
  lookAtKernel(out);
}

void lookAtSpaces(Patient& patient, Checkup& out) {
  if (!lookAtSpace(patient.paths.stateFile, out)) out.ok("there is room for its state");
}

// Whether it starts with the guest.
void lookAtUnit(Patient& patient, Checkup& out) {
  auto& root = patient.options.root;
  if (access(kj::str(root, "/run/systemd/system").cStr(), F_OK) != 0) return;
  struct stat about;
  bool isEnabled = lstat(kj::str(root, UNIT_LINK).cStr(), &about) == 0;
  if (isEnabled) return out.ok("postern-agent.service is enabled");
  out.warning("postern-agent.service does not start with this guest", "systemctl enable postern-agent");
}

constexpr Check<Patient> CHECKS[] = {
    {"config"_kj, lookAtConfig},           {"user"_kj, lookAtUser},     {"bundle"_kj, lookAtBundles},
    {"identity"_kj, lookAtIdentity},       {"space"_kj, lookAtSpaces},  {"kernel"_kj, lookAtKernelHere},
    {"transport"_kj, lookAtTransport},     {"broker"_kj, lookAtBroker}, {"agent"_kj, lookAtAgent},
    {"confinement"_kj, lookAtConfinement}, {"unit"_kj, lookAtUnit},
};

kj::String toJson(const Checkup& checkup, int status) {
  JsonWriter json;
  json.beginObject().field("ok", status == 0);
  checkup.write(json);
  json.field("exitStatus", status).endObject();
  return kj::str(json.finish(), '\n');
}

}  // namespace

int runDoctor(const DoctorOptions& options) {
  Patient patient(options);
  Checkup checkup;
  for (auto& check : CHECKS) {
    checkup.begin(check.name);
    check.look(patient, checkup);
  }
  int status = checkup.grade() == Grade::WRONG ? 1 : 0;
  auto text = options.json ? toJson(checkup, status) : checkup.toText();
  fputs(text.cStr(), stdout);
  return status;
}

}  // namespace postern::guest
