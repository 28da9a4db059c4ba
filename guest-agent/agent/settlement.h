#pragma once
// What follows from an enrolment on the broker's side, beside keys: grants that the bundle brought become this guest's
// policy if its administrator has none of his own and allows it; where the host is found is kept; and a bundle in
// /etc/postern/bundle, which is of no more use, is removed.

#include <kj/string.h>
#include <kj/vector.h>

#include "guest-agent/agent/configuration.h"
#include "guest-agent/identity/bundle-search.h"

namespace postern::guest {

struct Settlement {
  bool adopted = false;          // grants.toml is new: read the configuration again
  kj::Vector<kj::String> lines;  // for the log
};

// Which of the bundles was used is read from the state file, by the host's key: the agent has no say in it. Failures
// are lines; the enrolment stands whatever becomes of this.
Settlement settleEnrolment(const Paths& paths, const Configuration& configuration,
                           kj::ArrayPtr<const FoundBundle> bundles);

// Where the host was, by the bundle of the enrolment; null: the bundle did not say.
kj::Maybe<kj::String> storedTransport(const Paths& paths);

// Writes a small file that is either the old one or the new one, whatever happens. Null, or what went wrong.
kj::Maybe<kj::String> replaceFile(kj::StringPtr path, kj::StringPtr content, mode_t mode);

}  // namespace postern::guest
