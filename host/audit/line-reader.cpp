#include "host/audit/line-reader.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "host/audit/audit-line.h"

namespace postern::host {

kj::Maybe<LineReader> LineReader::open(kj::StringPtr path) {
  int fd = ::open(path.cStr(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return nullptr;
  kj::AutoCloseFd file(fd);
  struct stat info;
  if (fstat(file, &info) != 0) return nullptr;
  if (!S_ISREG(info.st_mode)) {
    errno = EINVAL;
    return nullptr;
  }
  return LineReader(kj::mv(file));
}

LineReader::LineReader(kj::AutoCloseFd file) : file(kj::mv(file)), buffer(kj::heapArray<char>(2 * MAX_LINE_BYTES)) {}

kj::Maybe<LineReader::Line> LineReader::next() {
  size_t searched = 0;
  uint64_t skipped = 0;  // of a line that is too long
  const uint64_t offset = position;
  for (;;) {
    auto unread = buffer.slice(begin, end);
    auto newline = static_cast<const char*>(
        searched == unread.size() ? nullptr : memchr(unread.begin() + searched, '\n', unread.size() - searched));
    if (newline != nullptr) {
      auto length = size_t(newline - unread.begin());
      begin += length + 1;
      position += length + 1;
      return Line{unread.slice(0, length), offset, true, skipped > 0 || length > MAX_LINE_BYTES};
    }
    searched = unread.size();
    if (unread.size() > MAX_LINE_BYTES) {
      position += unread.size();
      skipped += unread.size();
      begin = end = searched = 0;
    }
    if (!fill()) {
      unread = buffer.slice(begin, end);
      position += unread.size();
      begin = end;
      if (unread.size() == 0 && skipped == 0) return nullptr;
      return Line{unread, offset, false, skipped > 0};
    }
  }
}

bool LineReader::fill() {
  if (begin > 0) {
    memmove(buffer.begin(), buffer.begin() + begin, end - begin);
    end -= begin;
    begin = 0;
  }
  ssize_t n;
  KJ_SYSCALL(n = read(file, buffer.begin() + end, buffer.size() - end));
  end += size_t(n);
  return n > 0;
}

}  // namespace postern::host
