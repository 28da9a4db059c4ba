#include "host/daemon/local-callers.h"

#include <grp.h>
#include <kj/debug.h>
#include <kj/mutex.h>
#include <pwd.h>
#include <unistd.h>

#include <deque>
#include <vector>

namespace postern::host {

namespace {

constexpr int MAX_GROUPS = 1024;

kj::Own<const LocalCaller> lookUp(uid_t uid) {
  auto caller = kj::atomicRefcounted<LocalCaller>();
  caller->uid = uid;
  caller->isAdministrator = uid == 0 || uid == geteuid();
  std::vector<char> space(16 << 10);
  struct passwd entry;
  struct passwd* found = nullptr;
  if (getpwuid_r(uid, &entry, space.data(), space.size(), &found) != 0 || found == nullptr) return caller;
  caller->user = kj::str(found->pw_name);
  std::vector<gid_t> ids(MAX_GROUPS);
  int count = MAX_GROUPS;
  if (getgrouplist(found->pw_name, found->pw_gid, ids.data(), &count) < 0) return caller;
  kj::Vector<kj::String> groups;
  for (int i = 0; i < count; ++i) {
    std::vector<char> groupSpace(64 << 10);
    struct group group;
    struct group* answer = nullptr;
    if (getgrgid_r(ids[size_t(i)], &group, groupSpace.data(), groupSpace.size(), &answer) == 0 && answer != nullptr) {
      groups.add(kj::str(answer->gr_name));
    }
  }
  caller->groups = groups.releaseAsArray();
  return caller;
}

}  // namespace

kj::String LocalCaller::name() const {
  return user.size() == 0 ? kj::str("uid:", uid) : kj::str("user:", user);
}

PolicyCaller::PolicyCaller(const LocalCaller& caller)
    : caller(caller), groups(KJ_MAP(group, caller.groups)->kj::StringPtr { return group; }) {}

policy::HostCaller PolicyCaller::get() const {
  auto rights = caller.isAdministrator ? policy::HostCaller::Rights::ADMINISTRATOR : policy::HostCaller::Rights::USUAL;
  return {caller.user, groups, rights};
}

// The thread and what it is asked.
struct LocalCallers::Worker {
  struct Question {
    uid_t uid;
    kj::Own<kj::CrossThreadPromiseFulfiller<kj::Own<const LocalCaller>>> answer;
  };
  struct State {
    std::deque<Question> questions;
    bool ended = false;
  };
  kj::MutexGuarded<State> state;
  kj::Thread thread;

  Worker() : thread([this]() { work(); }) {}
  ~Worker() noexcept(false) { state.lockExclusive()->ended = true; }

  void work() {
    for (;;) {
      auto lock = state.lockExclusive();
      lock.wait([](const State& s) { return s.ended || !s.questions.empty(); });
      if (lock->ended) return;
      auto question = kj::mv(lock->questions.front());
      lock->questions.pop_front();
      lock.release();
      question.answer->fulfill(lookUp(question.uid));
    }
  }
};

LocalCallers::LocalCallers(kj::Timer& timer) : timer(timer), worker(kj::heap<Worker>()) {}
LocalCallers::~LocalCallers() noexcept(false) {}

kj::Promise<kj::Own<const LocalCaller>> LocalCallers::find(uid_t uid) {
  KJ_IF_MAYBE (k, known.find(uid)) {
    if (timer.now() < k->until) return kj::atomicAddRef(*k->caller);
  }
  auto answer = kj::newPromiseAndCrossThreadFulfiller<kj::Own<const LocalCaller>>();
  worker->state.lockExclusive()->questions.push_back({uid, kj::mv(answer.fulfiller)});
  return answer.promise.then([this, uid](kj::Own<const LocalCaller> caller) {
    Known entry{kj::atomicAddRef(*caller), timer.now() + REMEMBERED};
    known.upsert(uid, kj::mv(entry), [](Known& old, Known&& now) { old = kj::mv(now); });
    return caller;
  });
}

}  // namespace postern::host
