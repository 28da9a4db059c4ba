#include "guest-agent/info/small-file.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/io.h>
#include <kj/vector.h>
#include <unistd.h>

namespace postern::guest {

kj::String readSmallFile(kj::StringPtr path, size_t maxBytes) {
  // Non-blocking: somebody may have put a FIFO there.
  kj::AutoCloseFd fd(open(path.cStr(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (fd.get() < 0) return kj::String();
  kj::Vector<char> text;
  char buffer[4096];
  while (text.size() < maxBytes) {
    ssize_t got = read(fd, buffer, kj::min(sizeof(buffer), maxBytes - text.size()));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) break;
    text.addAll(buffer, buffer + got);
  }
  return kj::heapString(text.asPtr());
}

kj::String readSmallLine(kj::StringPtr path) {
  auto text = readSmallFile(path, 4096);
  return kj::heapString(text.slice(0, text.findFirst('\n').orDefault(text.size())));
}

}  // namespace postern::guest
