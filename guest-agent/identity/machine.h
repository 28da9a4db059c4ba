#pragma once
// Which machine this is, so that an identity that was copied onto another one, with its disk, is not used there.
//
// By the SMBIOS product UUID, which the hypervisor gives to the VM and a copy of a disk does not carry. Where there is
// none, or this process may not read it, by /etc/machine-id, which a copied disk does carry until somebody resets it;
// who uses that is told. Only hashes leave this file.

#include <kj/common.h>
#include <kj/string.h>

#include <array>

#include "guest-agent/paths.h"

namespace postern::guest {

using MachineHash = std::array<kj::byte, 32>;

class Machine {
 public:
  enum class Basis { PRODUCT_UUID, MACHINE_ID, NONE };

  // Null for what the machine does not have.
  Machine(kj::Maybe<MachineHash> byUuid, kj::Maybe<MachineHash> byMachineId)
      : byUuid(kj::mv(byUuid)), byMachineId(kj::mv(byMachineId)) {}
  // Needs the broker's rights for the UUID.
  static Machine read(const Paths& paths);

  Basis basis() const;
  // What a new identity is bound to.
  MachineHash hash() const;
  // Whether an identity that is bound to `bound` was made here. One that was bound to the machine-id, before the UUID
  // could be read, counts; never the other way round.
  bool made(const MachineHash& bound) const;

  const kj::Maybe<MachineHash>& uuidHash() const { return byUuid; }
  const kj::Maybe<MachineHash>& machineIdHash() const { return byMachineId; }

 private:
  kj::Maybe<MachineHash> byUuid;
  kj::Maybe<MachineHash> byMachineId;
};

}  // namespace postern::guest
