#include "guest-agent/log/damped-log.h"

#include "guest-agent/log/log.h"

namespace postern::guest {

DampedLog::DampedLog(kj::Timer& timer, Write write) : timer(timer), write(kj::mv(write)), tasks(*this) {}

void DampedLog::tell(kj::StringPtr thing, kj::StringPtr text) {
  std::string key(thing.begin(), thing.size());
  if (things.size() >= MAX_DAMPED_THINGS && things.count(key) == 0) key.clear();
  auto found = things.find(key);
  if (found != things.end()) {
    ++found->second.more;
    found->second.text = kj::str(text);
    return;
  }
  write(text);
  things.emplace(key, Thing{});
  tasks.add(watch(key));
}

// Until a minute has passed in which there was nothing.
kj::Promise<void> DampedLog::watch(std::string key) {
  return timer.afterDelay(DAMPED_FOR).then([this, key = kj::mv(key)]() mutable -> kj::Promise<void> {
    auto& thing = things.at(key);
    if (thing.more == 0) {
      things.erase(key);
      return kj::READY_NOW;
    }
    write(kj::str(thing.text, thing.more == 1 ? kj::str() : kj::str(" (", thing.more, " times within a minute)")));
    thing = Thing{};
    return watch(kj::mv(key));
  });
}

void DampedLog::taskFailed(kj::Exception&& exception) {
  logError("log-failed", exception.getDescription());
}

}  // namespace postern::guest
