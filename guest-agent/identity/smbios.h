#pragma once
// OEM strings (type 11) of one SMBIOS structure, as the kernel gives it in /sys/firmware/dmi/entries/11-*/raw. The
// bytes are the hypervisor's, and anything may stand in them:
//
//   u8 type = 11 | u8 length of this part, at least 5 | u16 handle | u8 count | ... | strings, each with its NUL | NUL

#include <kj/array.h>
#include <kj/vector.h>

namespace postern::guest {

// A structure of the kernel's is at most this long; a longer one is not looked at.
constexpr size_t MAX_SMBIOS_BYTES = size_t(64) << 10;

// Its strings in their order, at most as many as it counts; what is cut off is left out. They point into `untrusted`.
// Empty for anything else.
kj::Vector<kj::ArrayPtr<const char>> oemStrings(kj::ArrayPtr<const char> untrusted);

}  // namespace postern::guest
