#pragma once
// ActingAs: this thread has another user's rights for as long as the object lives: effective user, group and
// supplementary groups, for system calls that are decided by them. Nothing else may run meanwhile, so it lives within
// one function that does not wait.
//
// Needs root. Whoever cannot get back to what he was must not go on: the process is aborted.

#include <kj/array.h>
#include <kj/common.h>
#include <sys/types.h>

#include "transport/children/children.h"

namespace postern::guest {

class ActingAs {
 public:
  ActingAs(const Identity& identity, kj::ArrayPtr<const gid_t> groups);
  ~ActingAs();
  KJ_DISALLOW_COPY(ActingAs);

  // 0, or the error number of why the thread is still who it was.
  int error() const { return failure; }

 private:
  uid_t user;
  gid_t group;
  kj::Array<gid_t> groups;
  int failure = 0;
  enum Step { NOTHING, GROUPS, GROUP, USER } done = NOTHING;

  void restore();
};

}  // namespace postern::guest
