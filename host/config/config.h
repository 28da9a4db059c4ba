#pragma once
// postern.toml: posternd's settings. Every key has a default, so an absent file is a good one; an unknown key is an
// error that names the nearest known one.
//
//   rollback = "allow"        what to do with a guest that was put back to an earlier state: "allow", "quarantine" or
//                             "deny"
//   group = "postern"         who may use the control socket and read the status board; by default posternd's own
//   session-program = "/usr/libexec/postern/postern-session"    by default the one beside posternd
//   audit-files = "summary"   the audit has one line for a copy; "each": and one for each file of it
//   [service.NAME]            what guests may reach on the host, for whom policy allows it
//   target = "tcp:127.0.0.1:3142"      or "unix:/run/x.sock", or a program: ["/usr/libexec/x", "-i"] (service-target.h)
//   user = "nobody"           as whom a Unix socket is connected to, or the program runs; only where posternd is root,
//                             and required there for a program
//   proxy = "v2"              the target is told who connects
//   [audit]
//   file-bytes = 16777216     a file is rotated before it would be larger
//   files = 10                that are kept
//   on-failure = "refuse"     while the log cannot be written nothing is done that would have to be in it;
//                             "continue": it is done, and the log says how many lines are missing
//   [metrics]
//   listen = "unix:/run/postern/metrics.sock"     or "tcp:127.0.0.1:9560"; by default there are no metrics to be had

#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/vector.h>
#include <stdint.h>
#include <unistd.h>

#include "transport/service/connect-as.h"
#include "transport/service/local-address.h"
#include "transport/service/service-target.h"

namespace postern::host {

// What becomes of operations while the audit log cannot be written.
enum class AuditFailure : uint8_t { REFUSE, CONTINUE };

struct HostService {
  ServiceTarget target;
  kj::Maybe<ServiceUser> runAs;  // null: as posternd
};

struct Config {
  enum class Rollback : uint8_t { ALLOW, QUARANTINE, DENY };
  Rollback rollback = Rollback::ALLOW;
  enum class CopyLines : uint8_t { SUMMARY, EACH };
  CopyLines copyLines = CopyLines::SUMMARY;  // audit-files
  kj::String group;                          // empty: posternd's own
  kj::String sessionProgram;                 // empty: beside posternd
  uint64_t auditFileBytes = uint64_t(16) << 20;
  unsigned auditFiles = 10;
  AuditFailure onAuditFailure = AuditFailure::REFUSE;  // on-failure
  kj::Maybe<LocalAddress> metricsListen;  // of this machine, and no abstract Unix socket: those have no owner
  kj::Vector<HostService> services;
};

// `mustExist`: named by hand. Looks up the users of services. The lines say what is wrong, each with file and line.
enum class Presence : uint8_t { OPTIONAL, REQUIRED };
// `runsAs`: the user of the posternd that they are for.
kj::OneOf<Config, kj::Vector<kj::String>> readConfig(kj::StringPtr path, Presence presence, uid_t runsAs = geteuid());

}  // namespace postern::host
