#pragma once
// What one host has sealed to another: the export of a VM (host/move/vm-export.h), or anything else, with keys that are
// the same in every run.

#include <kj/array.h>
#include <kj/string.h>

#include "host/move/transfer-key.h"

namespace postern::fuzz {

constexpr kj::StringPtr EXPORT_PREFIX = "postern-export-1:"_kj;

struct MovingHosts {
  host::TransferKeyPair source;
  host::TransferKeyPair destination;

  static const MovingHosts& get();  // made once, and kept
};

// What the line carries: the destination's key and the message with this payload.
kj::Array<kj::byte> sealedExport(kj::ArrayPtr<const kj::byte> payload);

}  // namespace postern::fuzz
