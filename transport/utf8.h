#pragma once
// Bytes of others as characters.

#include <kj/array.h>
#include <stdint.h>

namespace postern {

constexpr uint32_t REPLACEMENT_CHARACTER = 0xfffd;

// Takes one character off the front of `rest`, which is not empty. What is not UTF-8 (RFC 3629: overlong forms,
// surrogates and what lies above U+10FFFF are not) costs one byte and is null.
kj::Maybe<uint32_t> takeCharacter(kj::ArrayPtr<const char>& rest);

bool isUtf8(kj::ArrayPtr<const char> bytes);

}  // namespace postern
