#include <doctest/doctest.h>

#include <string>

#include "guest-agent/doctor/processes.h"

using namespace postern::guest;

namespace {

std::string by(kj::StringPtr label, bool selinuxEnforces) {
  return confinementBy(label, selinuxEnforces).orDefault(kj::str("nobody")).cStr();
}

}  // namespace

TEST_CASE("who confines a process is told by its label: AppArmor's profile, or SELinux's context") {
  CHECK(by("postern-agent (enforce)", false) == "AppArmor's profile postern-agent confines it");
  // Of a context alone nobody knows how much it may: initrc_t may nearly all.
  CHECK(by("system_u:system_r:initrc_t:s0", true) == "it runs in SELinux's context system_u:system_r:initrc_t:s0");
}

TEST_CASE("nobody confines a process where what is refused is only written down") {
  CHECK(by("postern-agent (complain)", false) == "nobody");
  CHECK(by("unconfined", false) == "nobody");
  CHECK(by("system_u:system_r:postern_agent_t:s0", false) == "nobody");
  CHECK(by("", true) == "nobody");
  CHECK(by("kernel", true) == "nobody");
}
