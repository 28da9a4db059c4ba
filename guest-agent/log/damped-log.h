#pragma once
// DampedLog: lines that somebody else causes, as often as he likes. Of those about one thing the first is logged at
// once; what follows within a minute is counted, and told with the last text when the minute is over.
//
// At most MAX_DAMPED_THINGS things are told apart at one time; those above that are one thing. One loop.

#include <kj/async.h>
#include <kj/function.h>
#include <kj/string.h>
#include <kj/timer.h>

#include <map>
#include <string>

namespace postern::guest {

constexpr size_t MAX_DAMPED_THINGS = 512;
constexpr auto DAMPED_FOR = 1 * kj::MINUTES;

class DampedLog final : private kj::TaskSet::ErrorHandler {
 public:
  using Write = kj::Function<void(kj::StringPtr text)>;
  DampedLog(kj::Timer& timer, Write write);
  KJ_DISALLOW_COPY(DampedLog);

  // `text` names the thing for a person.
  void tell(kj::StringPtr thing, kj::StringPtr text);

 private:
  struct Thing {
    uint64_t more = 0;
    kj::String text;
  };

  kj::Timer& timer;
  Write write;
  std::map<std::string, Thing> things;
  kj::TaskSet tasks;

  kj::Promise<void> watch(std::string thing);
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::guest
