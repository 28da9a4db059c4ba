#include "guest-agent/files/opener-plan.h"

namespace postern::guest {

kj::OneOf<OpenerPlan, FilesRefusal> planOpener(const GuestPolicy& policy, const RunAs& agent,
                                               const transfer::FileOrder& order, kj::StringPtr callerText) {
  using Kind = FilesRefusal::Kind;
  KJ_IF_MAYBE (caller, parseCallerText(callerText)) {
    auto decided = policy.decideFile(*caller, order);
    KJ_IF_MAYBE (denial, decided.tryGet<Denial>()) {
      return FilesRefusal{Kind::DENIED, kj::mv(denial->detail), kj::mv(denial->rule)};
    }
    auto& place = decided.get<FilePlace>();
    auto user = findOpenerUser(place.runAs, agent);
    KJ_IF_MAYBE (why, user.tryGet<kj::String>()) return FilesRefusal{Kind::FAILED, kj::mv(*why), kj::String()};
    return OpenerPlan{kj::mv(place), kj::mv(user.get<OpenerUser>())};
  }
  return FilesRefusal{Kind::DENIED, GuestPolicy::unknownCaller().detail, kj::String()};
}

}  // namespace postern::guest
