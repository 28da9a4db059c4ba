#include "protocol/policy/wording.h"

#include <kj/vector.h>

#include <algorithm>
#include <numeric>

namespace postern::policy {

namespace {

constexpr size_t MAX_QUOTED_BYTES = 60;
constexpr size_t MAX_COMPARED_BYTES = 64;

// Levenshtein's distance. `a` has at most MAX_COMPARED_BYTES.
size_t distance(kj::StringPtr a, kj::StringPtr b) {
  size_t row[MAX_COMPARED_BYTES + 1];
  std::iota(row, row + a.size() + 1, size_t(0));
  for (size_t j = 0; j < b.size(); ++j) {
    size_t diagonal = row[0];
    row[0] = j + 1;
    for (size_t i = 0; i < a.size(); ++i) {
      size_t replaced = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[i + 1];
      row[i + 1] = std::min({replaced, row[i] + 1, diagonal + 1});
    }
  }
  return row[a.size()];
}

}  // namespace

kj::String quote(kj::StringPtr text) {
  size_t size = std::min(text.size(), MAX_QUOTED_BYTES);
  // Not within a character of UTF-8.
  while (size < text.size() && size > 0 && (text[size] & 0xc0) == 0x80) --size;
  auto kept = kj::heapString(text.slice(0, size));
  for (char& c : kept) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = '?';
  }
  return kj::str('\'', kept, size < text.size() ? "...'" : "'");
}

kj::String tomlString(kj::StringPtr text) {
  constexpr char HEX[] = "0123456789ABCDEF";
  kj::Vector<char> out(text.size() + 3);
  out.add('"');
  for (char c : text) {
    auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out.add('\\');
      out.add(c);
    } else if (byte < ' ' || byte == 0x7f) {
      out.addAll(kj::str("\\u00", HEX[byte >> 4], HEX[byte & 15]));
    } else {
      out.add(c);
    }
  }
  out.add('"');
  return kj::heapString(out);
}

kj::String tomlStrings(kj::ArrayPtr<const kj::String> texts) {
  if (texts.size() == 1) return tomlString(texts[0]);
  kj::Vector<kj::String> parts(texts.size());
  for (auto& text : texts) parts.add(tomlString(text));
  return kj::str('[', kj::strArray(parts, ", "), ']');
}

kj::Maybe<kj::StringPtr> nearest(kj::StringPtr text, kj::ArrayPtr<const kj::StringPtr> known) {
  if (text.size() == 0 || text.size() > MAX_COMPARED_BYTES) return nullptr;
  kj::Maybe<kj::StringPtr> best;
  // Two slips, or one in a short word.
  size_t least = (text.size() <= 3 ? 1 : 2) + 1;
  for (auto candidate : known) {
    if (candidate.size() > text.size() + 2 || text.size() > candidate.size() + 2) continue;
    size_t slips = distance(text, candidate);
    if (slips < least) {
      least = slips;
      best = candidate;
    }
  }
  return best;
}

kj::String didYouMean(kj::StringPtr text, kj::ArrayPtr<const kj::StringPtr> known) {
  KJ_IF_MAYBE (name, nearest(text, known)) return kj::str("; did you mean ", quote(*name), "?");
  return kj::String();
}

}  // namespace postern::policy
