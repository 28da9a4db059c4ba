#pragma once
// Small files of /proc and /etc, as a probe reads them: as far as a bound, and missing is empty.

#include <kj/string.h>

namespace postern::guest {

kj::String readSmallFile(kj::StringPtr path, size_t maxBytes = 65536);
// Its first line.
kj::String readSmallLine(kj::StringPtr path);

}  // namespace postern::guest
