#pragma once
// Sequences of Echo.ping calls, timed.

#include <kj/async-io.h>
#include <kj/vector.h>

#include "tests/support/echo.capnp.h"

namespace postern::bench {

// Seconds that each of `count` calls takes, one after the other.
kj::Vector<double> pingOneByOne(test::Echo::Client& echo, size_t count, kj::WaitScope& waitScope);

// The same while `*running`, to be added to `samples`.
kj::Promise<void> pingWhile(test::Echo::Client& echo, const bool& running, kj::Vector<double>& samples);

// Calls a second, with `window` calls under way at any time.
double pingPipelined(test::Echo::Client& echo, size_t count, size_t window, kj::WaitScope& waitScope);

}  // namespace postern::bench
