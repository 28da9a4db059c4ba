// The links of the chain that are the host's, from its configuration to a posternd that answers.

#include <errno.h>
#include <grp.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <unistd.h>

#include "host/board/board-reader.h"
#include "host/cli/doctor/patient.h"
#include "host/cli/status-source.h"
#include "host/config/config.h"
#include "host/daemon/policy-store.h"
#include "transport/checkup/machine.h"

namespace postern::cli {

namespace {

void lookAtConfig(Patient& patient, Checkup& out) {
  auto& path = patient.paths.config;
  auto read = host::readConfig(path, host::Presence::OPTIONAL, patient.daemonUser());
  KJ_IF_MAYBE (lines, read.tryGet<kj::Vector<kj::String>>()) {
    for (auto& line : *lines) out.wrong(line, kj::str("edit ", shellWord(path), "; ", patient.reloadPosternd()));
    return;
  }
  auto& config = read.get<host::Config>();
  if (config.group.size() > 0 && getgrnam(config.group.cStr()) == nullptr) {
    out.wrong(kj::str(path, ": there is no group ", config.group), kj::str("groupadd --system ", config.group));
  }
  auto& program = config.sessionProgram;
  if (program.size() > 0 && access(program.cStr(), X_OK) != 0) {
    out.wrong(kj::str(path, ": session-program ", program, " cannot be run"),
              kj::str("edit ", shellWord(path), "; ", patient.restartPosternd()));
  }
  if (out.gradeOf("config") == Grade::OK) {
    bool isThere = access(path.cStr(), F_OK) == 0;
    out.ok(kj::str(path, isThere ? " is good" : " is not there: all settings have their defaults"));
  }
}

bool mayRead(kj::StringPtr folder) {
  if (access(folder.cStr(), R_OK | X_OK) != 0) return errno == ENOENT;
  auto names = host::listFolder(folder, ".toml");
  if (!names.is<kj::Vector<kj::String>>()) return false;
  for (auto& name : names.get<kj::Vector<kj::String>>()) {
    if (access(kj::str(folder, '/', name).cStr(), R_OK) != 0 && errno == EACCES) return false;
  }
  return true;
}

void lookAtPolicy(Patient& patient, Checkup& out) {
  auto& paths = patient.paths;
  if (!mayRead(paths.policyFolder) || !mayRead(paths.grantsFolder)) {
    return out.ok("its files are not for this user to read");
  }
  host::PolicyStore store(paths.policyFolder, paths.grantsFolder);
  auto remedy = kj::str("edit that line; ", patient.postern("policy reload"));
  KJ_IF_MAYBE (lines, store.reload()) {
    for (auto& line : *lines) out.wrong(line, remedy);
    return;
  }
  for (auto& warning : store.warnings()) out.warning(warning, remedy);
  auto& document = store.current().document();
  patient.policyHash = policy::toHex(store.current().hash());
  out.ok(kj::str(document.rules.size(), " rules, ", document.tests.size(), " tests passed"));
}

void lookAtFolders(Patient& patient, Checkup& out) {
  constexpr mode_t OTHERS_WRITE = 0022, OTHERS_ANYTHING = 0077;
  auto& paths = patient.paths;
  auto user = patient.daemonUser();
  auto audit = paths.auditLog.slice(0, paths.auditLog.findLast('/').orDefault(0));
  auto auditFolder = kj::heapString(audit);
  const OwnedPath places[] = {
      {paths.config, nullptr, OTHERS_WRITE},        {paths.policyFolder, nullptr, OTHERS_WRITE},
      {paths.grantsFolder, user, OTHERS_WRITE},     {paths.vmFolder, user, OTHERS_ANYTHING},
      {paths.sessionFolder, user, OTHERS_ANYTHING}, {auditFolder, user, OTHERS_WRITE},
      {paths.auditLog, user, OTHERS_WRITE},
  };
  bool anyWrong = false;
  for (auto& place : places) anyWrong |= lookAtOwner(place, out);
  auto names = host::listFolder(paths.policyFolder, ".toml");
  KJ_IF_MAYBE (files, names.tryGet<kj::Vector<kj::String>>()) {
    for (auto& name : *files) {
      anyWrong |= lookAtOwner({kj::str(paths.policyFolder, '/', name), nullptr, OTHERS_WRITE}, out);
    }
  }
  if (!anyWrong) out.ok(kj::str("owners and modes are right for user ", userName(user)));
}

void lookAtSpaces(Patient& patient, Checkup& out) {
  bool isScarce = false;
  for (kj::StringPtr path :
       {patient.paths.vmFolder.asPtr(), patient.paths.auditLog.asPtr(), patient.paths.sessionFolder.asPtr()}) {
    isScarce |= lookAtSpace(path, out);
  }
  if (!isScarce) out.ok("there is room for state, audit log and sockets");
}

void lookAtCaller(Patient& patient, Checkup& out) {
  auto& path = patient.paths.controlSocket;
  auto user = userName(geteuid());
  if (access(path.cStr(), W_OK) == 0) return out.ok(kj::str("user ", user, " may ask posternd"));
  if (errno != EACCES) return;
  struct stat about;
  auto* group = stat(path.cStr(), &about) == 0 ? getgrgid(about.st_gid) : nullptr;
  kj::StringPtr name = group == nullptr ? "postern" : group->gr_name;
  out.wrong(kj::str("user ", user, " may not use ", path, ", which is for root and the group ", name),
            kj::str("usermod -aG ", name, ' ', user));
}

void lookAtPosternd(Patient& patient, Checkup& out) {
  if (out.gradeOf("caller") == Grade::WRONG) return;
  try {
    auto request = patient.run.control().control().daemonInfoRequest();
    auto& info = patient.daemon.emplace(patient.run.await(request.send(), "posternd"));
    out.ok(kj::str("pid ", info.getPid(), " answers at ", patient.paths.controlSocket));
  } catch (CommandFailure& failed) {
    if (failed.failure.kind == client::FailureKind::INTERRUPTED) throw;
    if (failed.failure.kind == client::FailureKind::TIMED_OUT) {
      return out.wrong(failed.failure.text, patient.restartPosternd());
    }
    out.wrong(kj::str("nobody answers at ", patient.paths.controlSocket), patient.startPosternd());
  }
}

void lookAtVersion(Patient& patient, Checkup& out) {
  KJ_IF_MAYBE (info, patient.daemon) {
    kj::StringPtr version = info->getVersion();
    if (version == POSTERN_VERSION) return out.ok(kj::str("posternd and postern are ", POSTERN_VERSION));
    out.warning(kj::str("posternd is ", version, ", and postern ", POSTERN_VERSION), patient.restartPosternd());
  }
}

void lookAtPolicyInForce(Patient& patient, Checkup& out) {
  KJ_IF_MAYBE (info, patient.daemon) {
    KJ_IF_MAYBE (hash, patient.policyHash) {
      if (*hash == info->getPolicyHash()) return out.ok("posternd goes by these files");
      out.warning("posternd goes by an earlier policy than that of the files", patient.postern("policy reload"));
    }
  }
}

void lookAtAudit(Patient& patient, Checkup& out) {
  KJ_IF_MAYBE (info, patient.daemon) {
    if (info->getAuditTrouble().size() == 0) return out.ok("posternd can write it");
    auto& path = patient.paths.auditLog;
    out.wrong(info->getAuditTrouble(), kj::str("df -h ", shellWord(path), "; ls -l ", shellWord(path)));
  }
}

void lookAtBoard(Patient& patient, Checkup& out) {
  if (patient.daemon == nullptr) return;
  auto opened = host::BoardReader::open(patient.paths.board);
  KJ_IF_MAYBE (why, opened.tryGet<kj::String>()) {
    bool mayNot = access(patient.paths.board.cStr(), R_OK) != 0 && errno == EACCES;
    if (mayNot) return out.ok("it is not for this user to read; posternd is asked instead");
    return out.wrong(*why, patient.restartPosternd());
  }
  auto snapshot = opened.get<kj::Own<host::BoardReader>>()->snapshot(patient.run.world.now());
  if (snapshot.writer != host::BoardWriterState::ALIVE) {
    return out.wrong(host::describe(snapshot.writer), patient.restartPosternd());
  }
  out.ok(kj::str(snapshot.vms.size(), " VMs are on it"));
}

// Lifetimes of bundles and rules are judged by it.
void lookAtClock(Patient&, Checkup& out) {
  struct timex about {};
  bool isKept = adjtimex(&about) >= 0 && (about.status & STA_UNSYNC) == 0;
  if (isKept) return out.ok("the clock is kept right");
  out.warning("nothing keeps this host's clock right: bundles and rules may expire too early, or too late",
              "timedatectl set-ntp true");
}

void lookAtKernelHere(Patient&, Checkup& out) {
  lookAtKernel(out);
}

void lookAtVms(Patient& patient, Checkup& out) {
  if (patient.daemon == nullptr || patient.vmName.size() > 0) return;
  auto states = readStates(patient.run, nullptr);
  for (auto& state : states) {
    auto text = kj::str(state.name, " is ", state.colour, ": ", state.explanation);
    auto remedy = patient.postern("doctor ", state.name);
    if (state.colour == "red") out.wrong(text, remedy);
    if (state.colour == "yellow") out.warning(text, remedy);
  }
  if (out.gradeOf("vms") == Grade::OK) out.ok(kj::str(states.size(), " VMs, none of them red or yellow"));
}

// Whether posternd runs comes first: what is below says why it does not.
constexpr Check<Patient> CHECKS[] = {
    {"caller"_kj, lookAtCaller},   {"posternd"_kj, lookAtPosternd}, {"version"_kj, lookAtVersion},
    {"config"_kj, lookAtConfig},   {"policy"_kj, lookAtPolicy},     {"in-force"_kj, lookAtPolicyInForce},
    {"folders"_kj, lookAtFolders}, {"space"_kj, lookAtSpaces},      {"audit"_kj, lookAtAudit},
    {"board"_kj, lookAtBoard},     {"kernel"_kj, lookAtKernelHere}, {"clock"_kj, lookAtClock},
    {"vms"_kj, lookAtVms},
};

}  // namespace

kj::ArrayPtr<const Check<Patient>> hostChecks() {
  return CHECKS;
}

}  // namespace postern::cli
