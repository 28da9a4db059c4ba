#pragma once
// Credentials: what each end brings to a handshake. They decide the pattern: an enrolled guest runs KKpsk0 and nothing
// else, an enrolling one XXpsk0; there is no fallback from one to the other.

#include <kj/common.h>
#include <kj/one-of.h>

#include "protocol/keys.h"

namespace postern {

// The guest's half of an enrolled pair.
struct GuestIdentity {
  VmId vm;
  GuestKeyPair own;
  HostPublicKey host;
  LinkSecret linkSecret;
};

// A guest that holds a bundle. `host` is the host's key as the bundle has it; null if the bundle has none, in which
// case the token alone proves the host.
struct GuestEnrolment {
  VmId vm;
  GuestKeyPair own;
  kj::Maybe<HostPublicKey> host;
  EnrolmentToken token;
};

using GuestCredentials = kj::OneOf<GuestIdentity, GuestEnrolment>;

// The host's half of an enrolled pair; one VM may have a current and a pending or rekeyed one.
struct HostIdentity {
  VmId vm;
  HostKeyPair own;
  GuestPublicKey guest;
  LinkSecret linkSecret;
};

// A token that was issued for a VM. `guest`: the key that has used it, after which no other may.
struct HostEnrolment {
  VmId vm;
  HostKeyPair own;
  kj::Maybe<GuestPublicKey> guest;
  EnrolmentToken token;
};

// The host's keys for the one VM that the channel leads to. A hint from the wire only chooses among them.
class HostKeyring {
 public:
  virtual ~HostKeyring() noexcept(false) {}
  // Null when there is none; what is returned lives until the handshake is over.
  virtual kj::Maybe<const HostIdentity&> identityFor(const Hint& keyHint) = 0;
  virtual kj::Maybe<const HostEnrolment&> enrolmentFor(const Hint& tokenHint) = 0;
};

// Fills the fields of a HELLO that follow from credentials: patterns and hints. The caller fills role, transport,
// nonce.
void describeCredentials(const GuestCredentials& credentials, Hello& hello);

}  // namespace postern
