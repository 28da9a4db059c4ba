#include "guest-agent/doctor/processes.h"

#include <dirent.h>
#include <kj/common.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "guest-agent/agent/agent-process.h"
#include "guest-agent/identity/bounded-file.h"
#include "guest-agent/info/small-file.h"

namespace postern::guest {

namespace {

constexpr size_t MAX_PROC_BYTES = size_t(64) << 10;

// Calls `each` with the names in a folder of /proc that are numbers, until it returns true.
template <typename Each>
bool anyNumber(kj::StringPtr folder, Each&& each) {
  DIR* listing = opendir(folder.cStr());
  if (listing == nullptr) return false;
  KJ_DEFER(closedir(listing));
  while (auto* entry = readdir(listing)) {
    char* end;
    auto number = strtol(entry->d_name, &end, 10);
    if (end != entry->d_name && *end == '\0' && each(static_cast<pid_t>(number))) return true;
  }
  return false;
}

kj::String contentOf(kj::StringPtr path) {
  auto content = readBounded(path, MAX_PROC_BYTES);
  return content.is<kj::Array<char>>() ? kj::heapString(content.get<kj::Array<char>>()) : kj::String();
}

kj::String linkTarget(kj::StringPtr path) {
  char target[PATH_MAX];
  auto size = readlink(path.cStr(), target, sizeof(target));
  return size < 0 ? kj::String() : kj::heapString(target, size_t(size));
}

pid_t parentOf(pid_t pid) {
  auto status = contentOf(kj::str("/proc/", pid, "/status"));
  auto* line = strstr(status.cStr(), "\nPPid:");
  return line == nullptr ? 0 : static_cast<pid_t>(strtol(line + strlen("\nPPid:"), nullptr, 10));
}

bool isAgentProcess(pid_t pid) {
  auto line = contentOf(kj::str("/proc/", pid, "/cmdline"));
  auto argument = line.findFirst('\0').map([&](size_t end) { return line.slice(end + 1); });
  return argument.orDefault("").startsWith(AGENT_PROCESS_OPTION);
}

}  // namespace

kj::Maybe<pid_t> whoHasOpen(kj::StringPtr path) {
  char wanted[PATH_MAX];
  if (realpath(path.cStr(), wanted) == nullptr) return nullptr;
  kj::Maybe<pid_t> found;
  anyNumber("/proc", [&](pid_t pid) {
    auto folder = kj::str("/proc/", pid, "/fd");
    // By name: of a file of another mount namespace AppArmor may deny even to look at it.
    bool has = anyNumber(folder, [&](pid_t fd) { return linkTarget(kj::str(folder, '/', fd)) == wanted; });
    if (has) found = pid;
    return has;
  });
  return found;
}

kj::Maybe<pid_t> agentProcessOf(pid_t parent) {
  kj::Maybe<pid_t> found;
  anyNumber("/proc", [&](pid_t pid) {
    bool is = parentOf(pid) == parent && isAgentProcess(pid);
    if (is) found = pid;
    return is;
  });
  return found;
}

kj::Maybe<kj::String> confinementOf(pid_t pid) {
  auto label = readSmallLine(kj::str("/proc/", pid, "/attr/current"));
  return confinementBy(label.cStr(), readSmallLine("/sys/fs/selinux/enforce") == "1");  // SELinux's ends with a NUL
}

// AppArmor says "unconfined", or "NAME (MODE)"; SELinux a context, "USER:ROLE:TYPE:LEVEL", which every process has: how
// much its type may is the policy's.
kj::Maybe<kj::String> confinementBy(kj::StringPtr label, bool selinuxEnforces) {
  constexpr auto ENFORCED = " (enforce)"_kj;
  if (label.endsWith(ENFORCED)) {
    return kj::str("AppArmor's profile ", label.slice(0, label.size() - ENFORCED.size()), " confines it");
  }
  if (selinuxEnforces && label.findFirst(':') != nullptr) return kj::str("it runs in SELinux's context ", label);
  return nullptr;
}

kj::String processName(pid_t pid) {
  return readSmallLine(kj::str("/proc/", pid, "/comm"));
}

}  // namespace postern::guest
