#pragma once
// What threads of the program under test bring about in their own time.

#include <unistd.h>

namespace postern::test {

// Whether count() is that within ten seconds.
template <typename Count, typename Expected>
bool comesTo(Count&& count, const Expected& expected) {
  for (int i = 0; i < 10'000 && count() != expected; ++i) usleep(1000);
  return count() == expected;
}

// What count() stays at for a while.
template <typename Count>
auto settled(Count&& count) {
  auto last = count();
  for (int quiet = 0; quiet < 50; ++quiet) {
    usleep(1000);
    if (auto now = count(); now != last) {
      last = now;
      quiet = 0;
    }
  }
  return last;
}

}  // namespace postern::test
