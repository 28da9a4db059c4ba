#pragma once
// A VM as it goes from one host to another: its identity and what the host knows of it, sealed.
//
//   line   = "postern-export-1:" ... (checked-line.h) of  public transfer key of the destination[32] | message
//   message = Noise_X_25519_ChaChaPoly_BLAKE2b, prologue "postern/export/1\0"; payload: vm-export.capnp's VmExport
//
// Guarantees: only the destination reads it, and not a byte of it can be changed. The destination knows whose key it
// was sealed with: whoever has that key's secret half, or the destination's own. Version, both keys, name and uuid are
// bound together. That it is taken once only is the registry's to see to, by its number.

#include <kj/memory.h>
#include <kj/one-of.h>
#include <kj/vector.h>

#include "host/move/transfer-key.h"
#include "protocol/bundle.h"
#include "protocol/identity.h"

namespace postern::host {

constexpr size_t MAX_EXPORTED_GRANTS_BYTES = size_t(16) << 10;
// The text of the largest export is shorter.
constexpr size_t MAX_EXPORT_BYTES = size_t(64) << 10;

struct VmExport {
  VmId uuid;
  kj::String name;
  uint64_t number = 0;
  kj::Vector<kj::String> tags;
  bool blocked = false;
  kj::Own<HostState> state;  // of `uuid`, with a current pair
  kj::String hostGrants;     // at most MAX_EXPORTED_GRANTS_BYTES
  kj::String guestGrants;    // at most MAX_BUNDLE_GRANTS_BYTES
};

// Null if `to` is a key with which no secret can be shared.
kj::Maybe<kj::String> sealExport(const VmExport& vm, const TransferKeyPair& own, const TransferPublicKey& to,
                                 Random& random);

struct OpenedExport {
  TransferPublicKey from;
  VmExport vm;
};
enum class ExportError {
  NOT_AN_EXPORT,
  DAMAGED,           // truncated or mistyped
  FOR_ANOTHER_HOST,  // sealed to another key
  ALTERED,           // it does not open
  NEWER_FORMAT,
};
kj::StringPtr describe(ExportError error);
// For any bytes at all; does not throw. Names, tags and grants are the other host's word, of bounded length.
kj::OneOf<OpenedExport, ExportError> openExport(kj::ArrayPtr<const char> untrusted, const TransferKeyPair& own);

}  // namespace postern::host
