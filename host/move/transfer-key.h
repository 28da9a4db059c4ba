#pragma once
// The transfer key of a host: what VMs that come here are sealed to, and by which another host knows where one that was
// moved comes from. Apart from the keys of VMs; made when it is first wanted, and kept.
//
// The public half is shown and named as a line (checked-line.h) that begins with "postern-host-1:".

#include <kj/one-of.h>

#include "host/files/files.h"
#include "protocol/keys.h"

namespace postern::host {

struct TransferSide {};
using TransferPublicKey = PublicKeyOf<TransferSide>;
using TransferKeyPair = KeyPairOf<TransferSide>;

kj::String toText(const TransferPublicKey& key);
// Null if it is none, or was mistyped. White space around it is ignored.
kj::Maybe<TransferPublicKey> parseTransferKey(kj::ArrayPtr<const char> untrusted);

// This host's, from a StateFile at `path`, which is made if it is not there: whole, or not at all.
kj::OneOf<TransferKeyPair, FileError> loadTransferKey(kj::StringPtr path, Random& random);

}  // namespace postern::host
