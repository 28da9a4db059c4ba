#include "transport/transfer/unnamed-file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "transport/transfer/system-problem.h"

namespace postern::transfer {

namespace {

constexpr size_t COPY_BYTES = size_t(128) << 10;

// After a call that failed with errno: whether to try again. A stream of somebody else's may be non-blocking.
bool isTransient(int descriptor, short event) {
  if (errno == EINTR) return true;
  if (errno != EAGAIN) return false;
  pollfd one = {descriptor, event, 0};
  poll(&one, 1, -1);
  return true;
}

}  // namespace

kj::OneOf<kj::AutoCloseFd, Problem> newUnnamedFile() {
  const char* folder = getenv("TMPDIR");
  if (folder == nullptr || folder[0] == '\0') folder = "/tmp";
  kj::AutoCloseFd file(open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
  if (file == nullptr) {
    auto name = kj::str(folder, "/postern-XXXXXX");
    file = kj::AutoCloseFd(mkostemp(name.begin(), O_CLOEXEC));
    if (file != nullptr) unlink(name.cStr());
  }
  if (file == nullptr) file = kj::AutoCloseFd(memfd_create("postern-stream", MFD_CLOEXEC));
  if (file == nullptr) return problemOf(errno, "make a temporary file", folder);
  return kj::mv(file);
}

kj::OneOf<uint64_t, Problem> copyBytes(int from, kj::StringPtr fromName, int to, kj::StringPtr toName) {
  auto buffer = kj::heapArray<kj::byte>(COPY_BYTES);
  uint64_t total = 0;
  for (;;) {
    ssize_t have = ::read(from, buffer.begin(), buffer.size());
    if (have < 0 && isTransient(from, POLLIN)) continue;
    if (have < 0) return problemOf(errno, "be read", fromName);
    if (have == 0) return total;
    if (int error = writeAll(to, buffer.slice(0, static_cast<size_t>(have)))) {
      return problemOf(error, "be written", toName);
    }
    total += static_cast<uint64_t>(have);
  }
}

int writeAll(int to, kj::ArrayPtr<const kj::byte> bytes) {
  while (bytes.size() > 0) {
    ssize_t n = ::write(to, bytes.begin(), bytes.size());
    if (n < 0 && isTransient(to, POLLOUT)) continue;
    if (n < 0) return errno;
    bytes = bytes.slice(static_cast<size_t>(n), bytes.size());
  }
  return 0;
}

}  // namespace postern::transfer
