#pragma once
// VmKeys: one VM's keys at both ends: those of an enrolled guest, and a token for one that enrols.

#include "tests/support/session-lab.h"

namespace postern::test {

struct VmKeys {
  explicit VmKeys(Random& random);

  GuestCredentials enrolled;
  GuestCredentials newcomer;
  LabKeyring host;  // fits both
};

}  // namespace postern::test
