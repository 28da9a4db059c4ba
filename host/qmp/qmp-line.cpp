#include "host/qmp/qmp-line.h"

#include <string.h>

namespace postern::host {

namespace {

QmpLines::Line withoutReturn(kj::ArrayPtr<const char> line) {
  bool hasReturn = line.size() > 0 && line.back() == '\r';
  return {line.slice(0, line.size() - (hasReturn ? 1 : 0))};
}

}  // namespace

kj::OneOf<QmpLines::Line, QmpLines::TooLong, QmpLines::UsedUp> QmpLines::next() {
  if (handedOut) {
    // A long line does not leave its memory behind.
    unfinished = kj::Vector<char>();
    handedOut = false;
  }
  if (unread.size() == 0) return UsedUp();
  auto end = static_cast<const char*>(memchr(unread.begin(), '\n', unread.size()));
  size_t length = end == nullptr ? unread.size() : static_cast<size_t>(end - unread.begin());
  if (length > MAX_QMP_LINE_BYTES - unfinished.size()) return TooLong();

  auto piece = unread.slice(0, length);
  unread = unread.slice(end == nullptr ? length : length + 1, unread.size());
  if (end != nullptr && unfinished.empty()) return withoutReturn(piece);
  unfinished.addAll(piece);
  if (end == nullptr) return UsedUp();
  handedOut = true;
  return withoutReturn(unfinished.asPtr());
}

}  // namespace postern::host
