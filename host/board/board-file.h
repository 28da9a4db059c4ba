#pragma once
// A status board's file, mapped after everything about it has been checked: that it is a regular file, long enough for
// what its header promises, and of this program's layout version and byte order. The path is not followed if it is a
// symbolic link, and nothing that lies there can make this wait.

#include <kj/one-of.h>
#include <kj/string.h>

#include <boost/interprocess/mapped_region.hpp>

#include "host/board/layout.h"

namespace postern::host {

struct MappedBoard {
  boost::interprocess::mapped_region region;
  uint32_t capacity;
};

// Or one printable line for a person.
kj::OneOf<MappedBoard, kj::String> mapBoard(kj::StringPtr path, boost::interprocess::mode_t mode);

inline size_t boardBytes(uint32_t capacity) {
  return board::HEADER_BYTES + size_t(capacity) * board::SLOT_BYTES;
}

}  // namespace postern::host
