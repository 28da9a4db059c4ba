#pragma once
// Text that others chose (a hostile user's mount point, a host's message), made fit to be passed on: valid UTF-8, of
// one line, bounded.

#include <kj/string.h>

namespace postern::guest {

// Every byte that belongs to no well-formed UTF-8 sequence, and every control character, becomes '?'. What is over
// `maxBytes` is cut off, between characters.
kj::String boundedText(kj::ArrayPtr<const char> untrusted, size_t maxBytes);
// The same, but line ends stay.
kj::String boundedLines(kj::ArrayPtr<const char> untrusted, size_t maxBytes);

// Whether boundedText() would leave it as it is.
bool isBoundedText(kj::ArrayPtr<const char> untrusted, size_t maxBytes);

}  // namespace postern::guest
