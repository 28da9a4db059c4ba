#include "host/cli/commands.h"
#include "host/cli/doctor/patient.h"

namespace postern::cli {

namespace {

void lookAtAll(kj::ArrayPtr<const Check<Patient>> checks, Patient& patient, Checkup& out) {
  for (auto& check : checks) {
    out.begin(check.name);
    try {
      check.look(patient, out);
    } catch (const CommandFailure& failed) {
      if (failed.failure.kind == client::FailureKind::INTERRUPTED) throw;
      out.wrong(failed.failure.text, "");
    }
  }
}

// What a broken link means; of others that the command has failed.
struct Meaning {
  kj::StringPtr check;
  ExitStatus status;
};
constexpr Meaning MEANINGS[] = {
    {"vm"_kj, ExitStatus::USAGE},
    {"link"_kj, ExitStatus::NOT_CONNECTED},
    {"heartbeat"_kj, ExitStatus::NOT_CONNECTED},
    {"ping"_kj, ExitStatus::DENIED},
};

ExitStatus statusOf(const Checkup& checkup) {
  auto status = ExitStatus::DONE;
  for (auto& finding : checkup.findings()) {
    if (finding.grade != Grade::WRONG) continue;
    auto one = ExitStatus::FAILED;
    for (auto& meaning : MEANINGS) {
      if (meaning.check == finding.check) one = meaning.status;
    }
    status = worst(status, one);
  }
  return status;
}

}  // namespace

ExitStatus runDoctor(Invocation& run, const DoctorArguments& arguments) {
  Patient patient(run, arguments.vm);
  Checkup checkup;
  lookAtAll(hostChecks(), patient, checkup);
  if (arguments.vm.size() > 0) lookAtAll(vmChecks(), patient, checkup);
  auto status = statusOf(checkup);
  if (!run.options.json) {
    run.world.out(checkup.toText());
    return status;
  }
  JsonWriter json;
  json.beginObject().field("ok", status == ExitStatus::DONE);
  checkup.write(json);
  json.field("exitStatus", static_cast<int>(status)).endObject();
  run.world.out(kj::str(json.finish(), '\n'));
  return status;
}

}  // namespace postern::cli
