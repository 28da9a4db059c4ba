#include "protocol/crc32c.h"

#include <boost/crc.hpp>

namespace postern {

uint32_t crc32c(kj::ArrayPtr<const kj::byte> data) {
  boost::crc_optimal<32, 0x1EDC6F41, 0xFFFFFFFF, 0xFFFFFFFF, true, true> crc;
  crc.process_bytes(data.begin(), data.size());
  return crc.checksum();
}

}  // namespace postern
