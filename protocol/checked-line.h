#pragma once
// A message as one line of printable ASCII, which survives SMBIOS strings, fw_cfg, cloud-init, mail and a terminal:
//
//   line = prefix base64url( message | BLAKE2b-128 of message )      no padding
//
// The prefix says what it is, and its version. The checksum finds a line that was truncated or mistyped; it proves
// nothing.

#include <kj/array.h>
#include <kj/one-of.h>
#include <kj/string.h>

namespace postern {

// Text that wipes itself.
class SecretText {
 public:
  explicit SecretText(kj::String text) : text(kj::mv(text)) {}
  SecretText(SecretText&&) = default;
  SecretText& operator=(SecretText&&) = delete;
  ~SecretText();
  KJ_DISALLOW_COPY(SecretText);
  kj::StringPtr get() const { return text; }

 private:
  kj::String text;
};

constexpr size_t LINE_CHECKSUM_BYTES = 16;

// What is in between is wiped.
SecretText encodeLine(kj::StringPtr prefix, kj::ArrayPtr<const kj::byte> message);

enum class LineError {
  OTHER_PREFIX,
  DAMAGED,  // truncated, mistyped, with something in the middle, or longer than there is room
};
// Writes the message to the front of `room`, which has LINE_CHECKSUM_BYTES more than the longest, and gives its size.
// White space around the line is ignored: a file or a terminal adds some. For any bytes at all; does not throw.
kj::OneOf<size_t, LineError> decodeLine(kj::StringPtr prefix, kj::ArrayPtr<const char> untrusted,
                                        kj::ArrayPtr<kj::byte> room);

}  // namespace postern
