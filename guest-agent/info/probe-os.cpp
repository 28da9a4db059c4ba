#include <limits.h>
#include <sodium.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "guest-agent/bounded-text.h"
#include "guest-agent/info/os-release.h"
#include "guest-agent/info/probes.h"
#include "guest-agent/info/small-file.h"

namespace postern::guest {

namespace {

// So that the hash is worth nothing to who knows the machine-id from elsewhere and wants to recognise it under another
// context, and the other way round (machine-id(5) asks for it).
constexpr kj::StringPtr MACHINE_ID_CONTEXT = "postern machine-id 1:"_kj;

kj::String text(kj::ArrayPtr<const char> untrusted) {
  return boundedText(untrusted, MAX_INFO_TEXT);
}

// 32 hexadecimal digits, as the machine-id itself has; empty without one.
kj::String hashedMachineId(kj::StringPtr machineId) {
  if (machineId.size() == 0 || machineId == "uninitialized") return kj::String();
  auto input = kj::str(MACHINE_ID_CONTEXT, machineId);
  kj::byte hash[16];
  crypto_generichash(hash, sizeof(hash), input.asBytes().begin(), input.size(), nullptr, 0);
  char hex[33];
  sodium_bin2hex(hex, sizeof(hex), hash, sizeof(hash));
  return kj::str(hex);
}

// From the symbolic link that localtime(5) prescribes, else Debian's older /etc/timezone.
kj::String timeZone(kj::StringPtr root) {
  char target[PATH_MAX];
  ssize_t length = readlink(kj::str(root, "/etc/localtime").cStr(), target, sizeof(target));
  auto link = kj::heapString(target, length > 0 ? size_t(length) : 0);
  constexpr kj::StringPtr MARK = "/zoneinfo/"_kj;
  for (size_t i = 0; i + MARK.size() < link.size(); ++i) {
    if (link.slice(i).startsWith(MARK)) return kj::str(link.slice(i + MARK.size()));
  }
  return readSmallLine(kj::str(root, "/etc/timezone"));
}

uint64_t secondsSinceBoot() {
  timespec now{};
  clock_gettime(CLOCK_BOOTTIME, &now);
  return uint64_t(now.tv_sec);
}

}  // namespace

void findOsBelow(kj::StringPtr root, schema::Info::Os::Builder os) {
  auto release = readSmallFile(kj::str(root, "/etc/os-release"));
  if (release.size() == 0) release = readSmallFile(kj::str(root, "/usr/lib/os-release"));
  os.setName(text(osReleaseValue(release, "PRETTY_NAME")));
  os.setId(text(osReleaseValue(release, "ID")));
  os.setVersionId(text(osReleaseValue(release, "VERSION_ID")));
  utsname name{};
  uname(&name);
  os.setKernel(text(kj::StringPtr(name.release)));
  os.setArchitecture(text(kj::StringPtr(name.machine)));
  os.setHostName(text(kj::StringPtr(name.nodename)));
  os.setBootedSecondsAgo(secondsSinceBoot());
  os.setBootId(text(readSmallLine(kj::str(root, "/proc/sys/kernel/random/boot_id"))));
  os.setMachineId(hashedMachineId(readSmallLine(kj::str(root, "/etc/machine-id"))));
  os.setTimeZone(text(timeZone(root)));
}

void findOs(schema::Info::Builder info) {
  findOsBelow("", info.initOs().initValue());
}

}  // namespace postern::guest
