#include "host/daemon/events.h"

namespace postern::host {

void Events::add(kj::StringPtr vm, kj::StringPtr kind, kj::String text, kj::StringPtr other) {
  if (kept.size() == MAX_EVENTS) kept.pop_front();
  kept.push_back(
      Event{++sequence, kj::systemPreciseCalendarClock().now(), kj::str(vm), kind, kj::mv(text), kj::str(other)});
  counted.add({kind});
  for (auto& waiter : waiting) waiter->fulfill();
  waiting.clear();
}

kj::Promise<void> Events::whenAfter(uint64_t after) {
  if (after < sequence) return kj::READY_NOW;
  waiting.remove_if([](kj::Own<kj::PromiseFulfiller<void>>& waiter) { return !waiter->isWaiting(); });
  auto waiter = kj::newPromiseAndFulfiller<void>();
  waiting.push_back(kj::mv(waiter.fulfiller));
  return kj::mv(waiter.promise);
}

}  // namespace postern::host
