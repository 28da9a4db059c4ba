#include "transport/utf8.h"

namespace postern {

kj::Maybe<uint32_t> takeCharacter(kj::ArrayPtr<const char>& rest) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(rest[i]); };
  auto first = byte(0);
  size_t more = first < 0x80                    ? 0
                : first >= 0xc2 && first < 0xe0 ? 1
                : (first & 0xf0) == 0xe0        ? 2
                : first >= 0xf0 && first < 0xf5 ? 3
                                                : 4;
  uint32_t character = more == 0 ? first : first & (0x3fu >> more);
  bool valid = more < 4 && more < rest.size();
  for (size_t i = 1; valid && i <= more; ++i) {
    valid = (byte(i) & 0xc0) == 0x80;
    character = character << 6 | (byte(i) & 0x3fu);
  }
  constexpr uint32_t LOWEST[] = {0, 0x80, 0x800, 0x10000};
  valid = valid && character >= LOWEST[more] && character <= 0x10ffff && (character < 0xd800 || character > 0xdfff);
  rest = rest.slice(valid ? more + 1 : 1, rest.size());
  if (!valid) return nullptr;
  return character;
}

bool isUtf8(kj::ArrayPtr<const char> bytes) {
  while (bytes.size() > 0) {
    if (takeCharacter(bytes) == nullptr) return false;
  }
  return true;
}

}  // namespace postern
