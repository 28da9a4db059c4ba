#pragma once
// How much space file systems have, asked in processes of their own: statvfs(2) on a dead network file system does not
// return, not even for a signal.

#include <kj/array.h>
#include <kj/function.h>
#include <kj/one-of.h>
#include <kj/time.h>
#include <stdint.h>

#include "guest-agent/info/mounts.h"

namespace postern::guest {

struct Space {
  uint64_t totalBytes;
  uint64_t availableBytes;  // for an unprivileged user
};
struct Stalled {};      // no answer in time
struct NotReadable {};  // an error, such as a FUSE mount of another user's
using Surveyed = kj::OneOf<Stalled, Space, NotReadable>;

using AskSpace = kj::Function<kj::Maybe<Space>(kj::StringPtr mountPoint)>;
kj::Maybe<Space> askSpace(kj::StringPtr mountPoint);  // statvfs(2)

// How long one that does not answer holds up the others, and how many may do so: with every worker stuck, the rest is
// stalled unasked. Local file systems are asked first.
constexpr auto SURVEY_PATIENCE = 100 * kj::MILLISECONDS;
constexpr unsigned MAX_SURVEY_WORKERS = 8;
// The whole of it, within a part's deadline of 2 s.
constexpr auto SURVEY_TIME = 1200 * kj::MILLISECONDS;

// One result a mount, in their order, after `time` at the latest. `ask` runs in forked workers, which are killed and
// not waited for at the end. The process has one thread.
kj::Array<Surveyed> surveySpace(kj::ArrayPtr<const Mount> mounts, AskSpace ask, kj::Duration time = SURVEY_TIME);

}  // namespace postern::guest
