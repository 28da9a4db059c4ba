#pragma once
// PolicyStore: the host's policy as its files say: policy.d/*.toml of the administrator and grants.d/*.toml, which
// `enroll --grant` writes. A reload that finds any error keeps the policy that counts.

#include <kj/memory.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/time.h>
#include <kj/vector.h>

#include "host/files/files.h"
#include "protocol/policy/load.h"

namespace postern::host {

class PolicyStore {
 public:
  // Denies everything until reload() has succeeded.
  PolicyStore(kj::StringPtr policyFolder, kj::StringPtr grantsFolder);

  // Null: done, and `current` is another. Otherwise lines for a person, each with file and line.
  kj::Maybe<kj::Vector<kj::String>> reload();
  const policy::Policy& current() const { return *policy; }
  kj::ArrayPtr<const kj::String> warnings() const { return lastWarnings; }

  // Of reload(), since the start.
  struct Reloads {
    uint64_t done = 0;
    uint64_t failed = 0;
    bool lastDone = true;
    kj::Date lastDoneAt = kj::UNIX_EPOCH;
  };
  const Reloads& reloads() const { return reloadCounts; }

  struct NotPut {
    enum class Why { POLICY, DISK } why;
    kj::Vector<kj::String> lines;  // as reload()'s
  };
  // The grants of one VM: written if the whole policy is good with them. `guestHalf` is kept beside them for the VM's
  // next bundle.
  kj::Maybe<NotPut> putGrants(kj::StringPtr vm, kj::StringPtr text, kj::StringPtr guestHalf);
  // What was put; empty without a grant file of the host's, whoever removed that.
  kj::String guestHalf(kj::StringPtr vm) const;
  // What was there, for the caller to see; empty if nothing was. `problems` as in reload().
  kj::String removeGrants(kj::StringPtr vm, kj::Vector<kj::String>& problems);
  kj::String grantFile(kj::StringPtr vm) const { return kj::str(grantsFolder, '/', vm, ".toml"); }
  kj::String guestHalfFile(kj::StringPtr vm) const { return kj::str(grantsFolder, '/', vm, ".guest"); }

 private:
  const kj::String policyFolder;
  const kj::String grantsFolder;
  kj::Own<const policy::Policy> policy;
  kj::Vector<kj::String> lastWarnings;
  Reloads reloadCounts;

  struct File {
    kj::String path;
    kj::String text;
  };
  kj::OneOf<kj::Vector<File>, FileError> readFolder(kj::StringPtr folder) const;
  kj::Maybe<kj::Vector<kj::String>> load(kj::Maybe<File> replacing);
};

}  // namespace postern::host
