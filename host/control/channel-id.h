#pragma once
// A channel's id as people and the audit log see it: 16 hexadecimal digits.

#include <kj/string.h>
#include <stdint.h>

namespace postern::host {

kj::String formatChannelId(uint64_t id);
// Null if it is none. Leading zeros may be left out.
kj::Maybe<uint64_t> parseChannelId(kj::StringPtr text);

}  // namespace postern::host
