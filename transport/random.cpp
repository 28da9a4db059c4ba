#include "transport/random.h"

#include <kj/debug.h>
#include <sys/random.h>

namespace postern {

void SystemRandom::fill(kj::ArrayPtr<kj::byte> out) {
  while (out.size() > 0) {
    ssize_t n;
    KJ_SYSCALL(n = getrandom(out.begin(), out.size(), 0));
    out = out.slice(static_cast<size_t>(n), out.size());
  }
}

}  // namespace postern
