#include "protocol/checked-line.h"

#include <kj/debug.h>
#include <sodium.h>
#include <string.h>

namespace postern {

namespace {

constexpr int VARIANT = sodium_base64_VARIANT_URLSAFE_NO_PADDING;

bool isSpace(char c) {
  return c == ' ' || c == '\t' || c == '\n' || c == '\r' || c == '\0';  // fw_cfg files may end in NUL
}

kj::ArrayPtr<const char> trimmed(kj::ArrayPtr<const char> text) {
  while (text.size() > 0 && isSpace(text.front())) text = text.slice(1, text.size());
  while (text.size() > 0 && isSpace(text.back())) text = text.slice(0, text.size() - 1);
  return text;
}

void checksum(kj::ArrayPtr<const kj::byte> message, kj::byte (&out)[LINE_CHECKSUM_BYTES]) {
  crypto_generichash(out, sizeof(out), message.begin(), message.size(), nullptr, 0);
}

// sodium_base642bin() of 1.0.18 takes some bytes above 127 for digits.
bool isBase64(kj::ArrayPtr<const char> text) {
  for (char c : text) {
    bool good = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
    if (!good) return false;
  }
  return true;
}

}  // namespace

SecretText::~SecretText() {
  if (text.size() > 0) sodium_memzero(text.begin(), text.size());
}

SecretText encodeLine(kj::StringPtr prefix, kj::ArrayPtr<const kj::byte> message) {
  auto whole = kj::heapArray<kj::byte>(message.size() + LINE_CHECKSUM_BYTES);
  KJ_DEFER(sodium_memzero(whole.begin(), whole.size()));
  memcpy(whole.begin(), message.begin(), message.size());
  kj::byte sum[LINE_CHECKSUM_BYTES];
  checksum(message, sum);
  memcpy(whole.begin() + message.size(), sum, sizeof(sum));
  auto text = kj::heapString(prefix.size() + sodium_base64_encoded_len(whole.size(), VARIANT) - 1);
  memcpy(text.begin(), prefix.begin(), prefix.size());
  sodium_bin2base64(text.begin() + prefix.size(), text.size() - prefix.size() + 1, whole.begin(), whole.size(),
                    VARIANT);
  return SecretText(kj::mv(text));
}

// T42
kj::OneOf<size_t, LineError> decodeLine(kj::StringPtr prefix, kj::ArrayPtr<const char> untrusted,
                                        kj::ArrayPtr<kj::byte> room) {
  auto text = trimmed(untrusted);
  if (text.size() < prefix.size() || memcmp(text.begin(), prefix.begin(), prefix.size()) != 0) {
    return LineError::OTHER_PREFIX;
  }
  text = text.slice(prefix.size(), text.size());
  if (!isBase64(text)) return LineError::DAMAGED;
  size_t size = 0;
  const char* end = nullptr;
  int failed = sodium_base642bin(room.begin(), room.size(), text.begin(), text.size(), nullptr, &size, &end, VARIANT);
  if (failed != 0 || end != text.end() || size <= LINE_CHECKSUM_BYTES) return LineError::DAMAGED;
  size -= LINE_CHECKSUM_BYTES;
  kj::byte sum[LINE_CHECKSUM_BYTES];
  checksum(room.slice(0, size), sum);
  if (sodium_memcmp(sum, room.begin() + size, LINE_CHECKSUM_BYTES) != 0) return LineError::DAMAGED;
  return size;
}

}  // namespace postern
