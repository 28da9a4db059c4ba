#pragma once
// What each end keeps of its pairing, as it lies in a StateFile, with the phases of an enrolment, so that a crash
// between any two steps is mended by connecting again:
//
//   guest  has made its key and holds a token   -> XXpsk0 with the token
//          ACCEPT brought the link secret       -> KKpsk0 first, since the host may have committed; XXpsk0 if refused
//          COMMITTED: the token is forgotten    -> KKpsk0, and nothing else ever
//   host   has made a key and a token: an offer
//          bound the offer to a guest's key, with a link secret; written before ACCEPT goes out
//          COMMIT, or KKpsk0 with these keys    -> the offer is the pair; the token is burned
//
// Keys are decoded into locked memory (locked.h); the bytes in between are wiped.

#include <kj/array.h>
#include <kj/memory.h>
#include <kj/one-of.h>

#include "protocol/credentials.h"

namespace postern {

struct GuestState {
  VmId vm;
  GuestKeyPair own;
  kj::Maybe<HostPublicKey> host;     // null: the bundle named none, and ACCEPT has not come
  kj::Maybe<LinkSecret> linkSecret;  // null before ACCEPT. With it, `host` is there too
  kj::Maybe<EnrolmentToken> token;   // null once committed. It or the link secret is always there
  uint64_t sessionCounter = 0;
  std::array<kj::byte, 32> machine{};
  bool grantsAdopted = false;

  bool isEnrolled() const { return token == nullptr; }
  // Copies. Which one to try: see above.
  kj::Maybe<GuestIdentity> identity() const;
  kj::Maybe<GuestEnrolment> enrolment() const;
};

struct HostPair {
  HostIdentity identity;
  uint64_t sessionCounter = 0;
  bool inherited = false;  // from another host, which may still have them
};

struct HostOffer {
  HostKeyPair own;
  EnrolmentToken token;
  uint64_t issuedAt = 0;  // seconds since 1970
  uint32_t lifetimeSeconds = 0;
  kj::Maybe<GuestPublicKey> guest;
  kj::Maybe<LinkSecret> linkSecret;  // with `guest`, never without
};

struct HostState {
  VmId vm;
  kj::Maybe<HostPair> current;
  kj::Maybe<HostOffer> offer;
};

enum class IdentityError {
  MALFORMED,     // not such a state at all, or a key of a wrong length or of zeros
  NEWER_FORMAT,  // written by a later version, which this one must not overwrite
};
kj::StringPtr describe(IdentityError error);

// The caller wipes the result.
kj::Array<kj::byte> encodeState(const GuestState& state);
kj::Array<kj::byte> encodeState(const HostState& state);

kj::OneOf<kj::Own<GuestState>, IdentityError> decodeGuestState(kj::ArrayPtr<const kj::byte> stored);
kj::OneOf<kj::Own<HostState>, IdentityError> decodeHostState(kj::ArrayPtr<const kj::byte> stored);

}  // namespace postern
