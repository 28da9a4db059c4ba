#pragma once
// As whom the process that speaks with the host runs.

#include <kj/common.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <sys/types.h>

namespace postern::guest {

constexpr kj::StringPtr DEFAULT_AGENT_USER = "postern-agent"_kj;

struct RunAs {
  uid_t uid;
  gid_t gid;
  bool change;         // this process is root and becomes that user; else it is as it is
  kj::String warning;  // empty, or a line for the log
};
struct RunAsError {
  kj::String text;
};

// `configured`: the settings' user. Without one: postern-agent if this process is root and there is such a user; else
// the same user. A configured user that does not exist, or whom only root could become, is an error.
kj::OneOf<RunAs, RunAsError> findRunAs(kj::Maybe<kj::StringPtr> configured);

}  // namespace postern::guest
