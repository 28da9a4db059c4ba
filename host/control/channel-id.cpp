#include "host/control/channel-id.h"

#include <kj/encoding.h>

namespace postern::host {

namespace {

constexpr size_t DIGITS = 16;

}  // namespace

kj::String formatChannelId(uint64_t id) {
  kj::byte bytes[DIGITS / 2];
  for (size_t i = 0; i < kj::size(bytes); ++i) bytes[i] = static_cast<kj::byte>(id >> (8 * (kj::size(bytes) - 1 - i)));
  return kj::encodeHex(bytes);
}

kj::Maybe<uint64_t> parseChannelId(kj::StringPtr text) {
  if (text.size() == 0 || text.size() > DIGITS) return nullptr;
  uint64_t id = 0;
  for (char c : text) {
    bool isDigit = c >= '0' && c <= '9';
    if (!isDigit && (c < 'a' || c > 'f')) return nullptr;
    id = id << 4 | static_cast<uint64_t>(isDigit ? c - '0' : c - 'a' + 10);
  }
  return id;
}

}  // namespace postern::host
