#pragma once
// Bundle: what `postern enroll` gives to a guest, as one line (checked-line.h) that begins with "postern-bundle-1:" and
// holds bundle.capnp's Bundle. It has a token in it, so its text is a secret too: whoever makes or reads one wipes it.

#include <kj/array.h>
#include <kj/one-of.h>
#include <kj/string.h>

#include "protocol/checked-line.h"
#include "protocol/keys.h"

namespace postern {

constexpr size_t MAX_BUNDLE_GRANTS_BYTES = 2048;
// The text of the largest bundle is shorter.
constexpr size_t MAX_BUNDLE_BYTES = 4096;

struct Bundle {
  VmId vm;
  kj::String vmName;  // policy::isVmName
  HostPublicKey host;
  EnrolmentToken token;
  kj::String transport;
  kj::String grants;
  uint32_t lifetimeSeconds = 0;
};

enum class BundleError {
  NOT_A_BUNDLE,  // does not begin as one
  DAMAGED,       // truncated, mistyped, or with something in the middle
  NEWER_FORMAT,  // of a later version
};
kj::StringPtr describe(BundleError error);

// Fields over their bounds are our bug.
SecretText encodeBundle(const Bundle& bundle);
// White space around it is ignored: a file or a terminal adds some. For any bytes at all; does not throw.
kj::OneOf<kj::Own<Bundle>, BundleError> parseBundle(kj::ArrayPtr<const char> untrusted);

// 8-4-4-4-12 hexadecimal digits, as SMBIOS and libvirt write it; null if it is not that.
kj::Maybe<VmId> parseVmId(kj::ArrayPtr<const char> untrusted);
kj::String toString(const VmId& vm);

}  // namespace postern
