#pragma once
// CRC-32C (Castagnoli, RFC 3720 appendix B.4). Catches line noise in HELLO frames; protects nothing from an attacker.

#include <kj/array.h>
#include <kj/common.h>
#include <stdint.h>

namespace postern {

uint32_t crc32c(kj::ArrayPtr<const kj::byte> data);

}  // namespace postern
