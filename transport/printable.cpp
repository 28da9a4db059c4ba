#include "transport/printable.h"

namespace postern {

// T39
kj::String printable(kj::ArrayPtr<const char> untrusted, size_t maxBytes) {
  bool cut = untrusted.size() > maxBytes;
  auto text = kj::heapString(untrusted.slice(0, cut ? maxBytes : untrusted.size()));
  for (char& c : text) {
    if (c < ' ' || c > '~') c = '?';
  }
  return cut ? kj::str(text, "...") : kj::mv(text);
}

}  // namespace postern
