#include "host/board/machine.h"

#include <ctype.h>
#include <fcntl.h>
#include <kj/io.h>
#include <kj/string.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

namespace postern::host {

namespace {

// A small file of the kernel's, which comes in one read; empty if it cannot be read.
kj::String readSmall(kj::StringPtr path) {
  int fd = open(path.cStr(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) return kj::String();
  kj::AutoCloseFd owned(fd);
  char buffer[1024];
  ssize_t n = read(owned, buffer, sizeof(buffer));
  return kj::heapString(buffer, n < 0 ? 0 : size_t(n));
}

}  // namespace

std::array<uint8_t, 16> machineBootId() {
  std::array<uint8_t, 16> id{};
  size_t digits = 0;
  for (char c : readSmall("/proc/sys/kernel/random/boot_id")) {
    if (!isxdigit(static_cast<unsigned char>(c)) || digits == 2 * id.size()) continue;
    auto value = uint8_t(c <= '9' ? c - '0' : (c | 0x20) - 'a' + 10);
    id[digits / 2] = uint8_t(id[digits / 2] << 4 | value);
    ++digits;
  }
  return id;
}

uint64_t ownStartTicks() {
  auto stat = readSmall("/proc/self/stat");
  // The second field is the program's name in parentheses, which may hold spaces and parentheses.
  const char* at = strrchr(stat.cStr(), ')');
  for (unsigned field = 2; at != nullptr && field < 22; ++field) {
    at = strchr(at + 1, ' ');
  }
  return at == nullptr ? 0 : strtoull(at + 1, nullptr, 10);
}

}  // namespace postern::host
