#include "host/config/config.h"

#include <string.h>
#include <unistd.h>

#include "host/config/services.h"
#include "host/files/files.h"
#include "protocol/policy/names.h"
#include "protocol/policy/table-reader.h"

namespace postern::host {

namespace {

constexpr size_t MAX_CONFIG_BYTES = 64 << 10;

void readAudit(const policy::TomlTable& table, policy::Place place, policy::Problems& problems, Config& config) {
  policy::TableReader reader(table, place, "[audit]", problems);
  KJ_IF_MAYBE (bytes, reader.wholeNumber("file-bytes")) {
    if (*bytes < (1 << 16)) problems.error(reader.placeOf("file-bytes"), "at least 65536");
    config.auditFileBytes = uint64_t(*bytes);
  }
  KJ_IF_MAYBE (files, reader.wholeNumber("files")) {
    if (*files > 1000) problems.error(reader.placeOf("files"), "at most 1000");
    config.auditFiles = static_cast<unsigned>(*files);
  }
  KJ_IF_MAYBE (failure, reader.text("on-failure")) {
    if (failure->text == "continue") {
      config.onAuditFailure = AuditFailure::CONTINUE;
    } else if (failure->text != "refuse") {
      problems.error(failure->place, "on-failure is \"refuse\" or \"continue\"");
    }
  }
  reader.finish();
}

// Anybody who reaches the address may read the metrics, so it is one of this machine.
kj::Maybe<kj::StringPtr> whyNoMetricsThere(const LocalAddress& address) {
  KJ_SWITCH_ONEOF(address) {
    KJ_CASE_ONEOF(path, UnixAddress) {
      if (path.path.startsWith("@")) return "an abstract Unix socket is open to everybody; name a path"_kj;
    }
    KJ_CASE_ONEOF(tcp, TcpAddress) {
      static constexpr kj::byte LOOPBACK_SIX[16] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1};
      bool isLoopback = tcp.isSix ? memcmp(tcp.address, LOOPBACK_SIX, 16) == 0 : tcp.address[0] == 127;
      if (!isLoopback) return "metrics are for this machine alone: 127.0.0.1, [::1] or a Unix socket"_kj;
    }
  }
  return nullptr;
}

void readMetrics(const policy::TomlTable& table, policy::Place place, policy::Problems& problems, Config& config) {
  policy::TableReader reader(table, place, "[metrics]", problems);
  KJ_IF_MAYBE (listen, reader.text("listen")) {
    auto parsed = parseLocalAddress(listen->text);
    KJ_SWITCH_ONEOF(parsed) {
      KJ_CASE_ONEOF(error, LocalAddressError) {
        problems.error(listen->place, error.text);
      }
      KJ_CASE_ONEOF(address, LocalAddress) {
        KJ_IF_MAYBE (why, whyNoMetricsThere(address)) problems.error(listen->place, *why);
        config.metricsListen = kj::mv(address);
      }
    }
  }
  reader.finish();
}

}  // namespace

kj::OneOf<Config, kj::Vector<kj::String>> readConfig(kj::StringPtr path, Presence presence, uid_t runsAs) {
  kj::Vector<kj::String> lines;
  if (presence == Presence::OPTIONAL && access(path.cStr(), F_OK) != 0) return Config();
  auto read = readFile(path, MAX_CONFIG_BYTES);
  KJ_IF_MAYBE (error, read.tryGet<FileError>()) {
    lines.add(kj::mv(error->text));
    return kj::mv(lines);
  }
  auto parsed = policy::parseToml(read.get<kj::String>());
  KJ_IF_MAYBE (error, parsed.tryGet<policy::TomlError>()) {
    lines.add(kj::str(path, ':', error->line, ": ", error->text));
    return kj::mv(lines);
  }
  Config config;
  policy::Problems problems;
  policy::TableReader reader(parsed.get<policy::TomlTable>(), {path, 0}, "postern.toml", problems);
  KJ_IF_MAYBE (rollback, reader.text("rollback")) {
    if (rollback->text == "deny") {
      config.rollback = Config::Rollback::DENY;
    } else if (rollback->text == "quarantine") {
      config.rollback = Config::Rollback::QUARANTINE;
    } else if (rollback->text != "allow") {
      problems.error(rollback->place, "rollback is \"allow\", \"quarantine\" or \"deny\"");
    }
  }
  KJ_IF_MAYBE (lines, reader.text("audit-files")) {
    if (lines->text == "each") {
      config.copyLines = Config::CopyLines::EACH;
    } else if (lines->text != "summary") {
      problems.error(lines->place, "audit-files is \"summary\" or \"each\"");
    }
  }
  KJ_IF_MAYBE (group, reader.text("group")) {
    if (!policy::isAccountName(group->text)) problems.error(group->place, "not a group's name");
    config.group = kj::str(group->text);
  }
  KJ_IF_MAYBE (program, reader.text("session-program")) {
    if (!program->text.startsWith("/")) problems.error(program->place, "needs an absolute path");
    config.sessionProgram = kj::str(program->text);
  }
  KJ_IF_MAYBE (audit, reader.subtable("audit")) readAudit(*audit, reader.placeOf("audit"), problems, config);
  KJ_IF_MAYBE (metrics, reader.subtable("metrics")) readMetrics(*metrics, reader.placeOf("metrics"), problems, config);
  reader.skip("service");
  for (auto& entry : parsed.get<policy::TomlTable>().entries) {
    if (entry.key == "service") config.services = readHostServices(entry, path, runsAs, lines);
  }
  reader.finish();
  if (!problems.hasErrors() && lines.empty()) return kj::mv(config);
  for (auto& problem : problems.takeErrors()) lines.add(problem.toString());
  return kj::mv(lines);
}

}  // namespace postern::host
