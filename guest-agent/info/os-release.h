#pragma once
// os-release(5): KEY=value lines, the value plain or quoted as a shell would have it.

#include <kj/string.h>

namespace postern::guest {

// The value of `key`, of its last line; empty if there is none. A text that is not well-formed gives something, bounded
// by the text.
kj::String osReleaseValue(kj::StringPtr text, kj::StringPtr key);

}  // namespace postern::guest
