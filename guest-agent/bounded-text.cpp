#include "guest-agent/bounded-text.h"

#include <kj/vector.h>
#include <stdint.h>

namespace postern::guest {

namespace {

// Bytes of the well-formed sequence at the beginning of `text`, or 0; RFC 3629, table 3-7 of the Unicode standard.
size_t sequenceLength(kj::ArrayPtr<const char> text) {
  auto byte = [&](size_t i) { return i < text.size() ? uint8_t(text[i]) : uint8_t(0); };
  auto within = [&](size_t i, uint8_t low, uint8_t high) { return byte(i) >= low && byte(i) <= high; };
  auto tail = [&](size_t i) { return within(i, 0x80, 0xbf); };
  uint8_t first = byte(0);
  if (first < 0x80) return 1;
  if (first >= 0xc2 && first <= 0xdf) return tail(1) ? 2 : 0;
  if (first >= 0xe0 && first <= 0xef) {
    bool second = first == 0xe0 ? within(1, 0xa0, 0xbf) : first == 0xed ? within(1, 0x80, 0x9f) : tail(1);
    return second && tail(2) ? 3 : 0;
  }
  if (first >= 0xf0 && first <= 0xf4) {
    bool second = first == 0xf0 ? within(1, 0x90, 0xbf) : first == 0xf4 ? within(1, 0x80, 0x8f) : tail(1);
    return second && tail(2) && tail(3) ? 4 : 0;
  }
  return 0;
}

// C0, DEL and C1 (U+0080 to U+009F), which terminals obey as well.
bool isControl(kj::ArrayPtr<const char> sequence) {
  auto first = uint8_t(sequence[0]);
  if (sequence.size() == 1) return first < 0x20 || first == 0x7f;
  return first == 0xc2 && uint8_t(sequence[1]) < 0xa0;
}

enum class LineEnds { REPLACED, KEPT };

kj::String bounded(kj::ArrayPtr<const char> untrusted, size_t maxBytes, LineEnds lineEnds) {
  kj::Vector<char> out(kj::min(untrusted.size(), maxBytes) + 1);
  while (untrusted.size() > 0) {
    size_t length = sequenceLength(untrusted);
    auto sequence = untrusted.slice(0, kj::max(length, size_t(1)));
    untrusted = untrusted.slice(sequence.size(), untrusted.size());
    bool keep = length > 0 && (!isControl(sequence) || (lineEnds == LineEnds::KEPT && sequence[0] == '\n'));
    if (out.size() + (keep ? sequence.size() : 1) > maxBytes) break;
    if (keep) {
      out.addAll(sequence);
    } else {
      out.add('?');
    }
  }
  return kj::heapString(out.asPtr());
}

}  // namespace

kj::String boundedText(kj::ArrayPtr<const char> untrusted, size_t maxBytes) {
  return bounded(untrusted, maxBytes, LineEnds::REPLACED);
}

kj::String boundedLines(kj::ArrayPtr<const char> untrusted, size_t maxBytes) {
  return bounded(untrusted, maxBytes, LineEnds::KEPT);
}

bool isBoundedText(kj::ArrayPtr<const char> untrusted, size_t maxBytes) {
  if (untrusted.size() > maxBytes) return false;
  while (untrusted.size() > 0) {
    size_t length = sequenceLength(untrusted);
    if (length == 0 || isControl(untrusted.slice(0, length))) return false;
    untrusted = untrusted.slice(length, untrusted.size());
  }
  return true;
}

}  // namespace postern::guest
