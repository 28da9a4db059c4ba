#pragma once
// Pairing: this guest's keys, through every phase of an enrolment (protocol/identity.h), on disk before the step that
// follows from them. So whatever moment the machine stops at, connecting again mends it.
//
// Two places. `current` is the identity; `successor` is a second enrolment, begun because a new bundle came while there
// was an identity: a rekeying by the host, or a correction of a bundle that does not work. The successor goes through
// the same phases in its own file, and takes the place of the current one when it is committed, not before:
//
//   new bundle         successor := new key, token                    the current identity works on
//   ACCEPT             successor := + link secret
//   COMMITTED          current := successor; then successor := none   in this order; a crash between the two leaves the
//                                                                     same keys in both, and the successor is dropped
//   refused            after MAX_REFUSALS without an ACCEPT, or at once if another bundle waits: none, and the bundle
//   is
//                      not tried again by this process. A successor that had its ACCEPT may be what the host has
//                      committed; it is dropped only once the host has taken the current identity again
//
// A bundle is news if neither identity has its token or its host's key, which the host makes anew for each bundle. With
// an established identity, a bundle for another VM is not: an identity does not change its VM.
//
// Every round of attempts begins with the successor and ends with the current identity, or the other way round while
// the current one is only a first bundle without an ACCEPT; in each, KKpsk0 comes before XXpsk0, since a host may have
// committed what this guest does not know of. What else could have been enrolled with is forgotten at a commit. Bound
// to its machine: one that was copied onto another is refused (machine.h). Owned by the agent; keys lie in locked
// memory.

#include <kj/memory.h>
#include <kj/one-of.h>
#include <kj/vector.h>

#include <deque>

#include "guest-agent/identity/machine.h"
#include "guest-agent/identity/vault.h"
#include "protocol/bundle.h"
#include "protocol/identity.h"
#include "protocol/random.h"

namespace postern::guest {

// How often the host may refuse a successor. One could be a host that was just restarting.
constexpr unsigned MAX_REFUSALS = 3;

class Pairing {
 public:
  enum class Slot : uint8_t { CURRENT, SUCCESSOR };
  enum class Way : uint8_t { SESSION, ENROLMENT };  // KKpsk0, XXpsk0
  struct Attempt {
    Slot slot;
    Way way;
    bool operator==(const Attempt&) const = default;
  };

  // Both vaults outlive this. An error: the identity cannot be used, by a line that says what a person has to do.
  static kj::OneOf<kj::Own<Pairing>, VaultError> open(Vault& current, Vault& successor, const Machine& machine,
                                                      Random& random);
  Pairing(Vault& current, Vault& successor, const Machine& machine, Random& random);
  ~Pairing() noexcept(false);
  KJ_DISALLOW_COPY(Pairing);

  // Takes what is news of these bundles, first ones first. May be called again, with what is there then.
  struct Told {
    bool news = false;             // there is something to try that was not there before
    kj::Vector<kj::String> lines;  // about bundles that are not taken, and why
  };
  kj::OneOf<Told, VaultError> consider(kj::ArrayPtr<const kj::Own<Bundle>> bundles);

  // New keys that the host of the current identity asks for, over a session of it: as a bundle for the same VM. What is
  // still to be tried, and has no ACCEPT yet, makes place. False: a rekeying that has its ACCEPT is not finished.
  [[nodiscard]] kj::OneOf<bool, VaultError> rekey(const HostPublicKey& host, EnrolmentToken token);

  bool isEnrolled() const;
  kj::Maybe<VmId> vm() const;
  // Whether there is a bundle that was taken since, and that attempts() did not have when a round began.
  bool hasUntried() const;
  // What to try, in this order. Empty: there is no bundle.
  kj::Vector<Attempt> attempts() const;

  // Of an attempt that attempts() has just given. `credentials` copies.
  GuestCredentials credentials(Attempt attempt) const;
  // The next session counter, on disk. Before each CONFIRM.
  [[nodiscard]] kj::OneOf<uint64_t, VaultError> nextCounter(Attempt attempt);
  // ACCEPT of an enrolment came: on disk, before COMMIT.
  [[nodiscard]] kj::Maybe<VaultError> accepted(Attempt attempt, const HostPublicKey& host, LinkSecret secret);
  // COMMITTED came, or KKpsk0 made a session, which says the same. Nothing is written if nothing changes.
  [[nodiscard]] kj::Maybe<VaultError> committed(Attempt attempt);
  // Whether what a bundle brings beside keys (BrokerClient::enrolled) is still to be seen to for the current identity.
  bool isUnsettled() const;
  [[nodiscard]] kj::Maybe<VaultError> settled();
  // The host answered and there is no session.
  [[nodiscard]] kj::Maybe<VaultError> refused(Attempt attempt);

 private:
  struct Candidate {
    VmId vm;
    HostPublicKey host;
    EnrolmentToken token;
  };

  Vault& currentVault;
  Vault& successorVault;
  const Machine& machine;
  Random& random;
  kj::Maybe<kj::Own<GuestState>> current;
  kj::Maybe<kj::Own<GuestState>> successor;
  std::deque<Candidate> candidates;  // news that waits for the successor's place
  unsigned refusals = 0;             // of the successor
  kj::Vector<Hint> turnedDown;       // tokens that this process does not try again

  kj::Maybe<VaultError> loadCurrent();
  kj::Maybe<VaultError> loadSuccessor();
  GuestState& stateOf(Slot slot);
  const GuestState& stateOf(Slot slot) const;
  kj::Own<GuestState> begin(Candidate candidate);
  kj::Maybe<VaultError> dropIfReplaced(kj::ArrayPtr<const kj::Own<Bundle>> bundles);
  kj::Maybe<kj::String> whyNot(const Bundle& bundle) const;
  kj::Maybe<VaultError> dropSuccessor();
  // True if a bundle was taken.
  kj::OneOf<bool, VaultError> nextCandidate();
};

// Writes what a state says. Keys in between are wiped.
[[nodiscard]] kj::Maybe<VaultError> store(Vault& vault, const GuestState& state);

}  // namespace postern::guest
