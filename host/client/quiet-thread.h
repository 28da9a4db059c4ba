#pragma once
// Threads of a program whose loop waits for signals: they get none.

#include <kj/function.h>
#include <kj/memory.h>
#include <kj/thread.h>

namespace postern::client {

kj::Own<kj::Thread> newQuietThread(kj::Function<void()> run);

}  // namespace postern::client
