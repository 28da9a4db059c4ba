#pragma once
// Patient: the host, and perhaps one of its VMs, as `postern doctor` looks at it: what earlier checks have learnt for
// later ones, and the commands that mend things here. All with the rights of the caller: what he may not see is left
// out.

#include "host/cli/invocation.h"
#include "transport/checkup/checkup.h"

namespace postern::cli {

class Patient {
 public:
  // `run` and `vm`, which is empty for the host alone, outlive this.
  Patient(Invocation& run, kj::StringPtr vm) : run(run), paths(run.paths), vmName(vm) {}
  KJ_DISALLOW_COPY(Patient);

  Invocation& run;
  const host::Paths& paths;
  const kj::StringPtr vmName;

  // Of the checks so far:
  kj::Maybe<capnp::Response<host::schema::Control::DaemonInfoResults>> daemon;  // null: posternd does not answer
  kj::Maybe<kj::String> policyHash;                                             // of the files
  kj::Maybe<capnp::Response<host::schema::Control::ShowVmResults>> shown;       // null: the VM is not to be seen

  // posternd's: of the one that runs, of the one that ran last, or of the package.
  uid_t daemonUser() const;

  // A command of postern's, for the same root.
  template <typename... Words>
  kj::String postern(Words&&... words) const {
    return kj::str("postern ", rootOption(), kj::fwd<Words>(words)...);
  }
  kj::String startPosternd() const;
  kj::String restartPosternd() const;
  kj::String reloadPosternd() const;
  // To be run in the VM.
  kj::String inGuest(kj::StringPtr command) const { return kj::str("in ", vmName, ": ", command); }

 private:
  kj::String rootOption() const;
};

kj::ArrayPtr<const Check<Patient>> hostChecks();
kj::ArrayPtr<const Check<Patient>> vmChecks();

}  // namespace postern::cli
