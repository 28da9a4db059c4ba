#include "host/board/board-file.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/io.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/interprocess/file_mapping.hpp>

namespace postern::host {

namespace interprocess = boost::interprocess;

namespace {

kj::String cannotOpen(kj::StringPtr path, int error) {
  switch (error) {
    case ENOENT:
      return kj::str(path, ": there is no status board; is posternd running?");
    case EACCES:
    case EPERM:
      return kj::str(path, ": permission denied; the status board is for root and the group of the file");
    case ELOOP:
      return kj::str(path, ": is a symbolic link, which is refused");
    default:
      return kj::str(path, ": ", strerror(error));
  }
}

// What is wrong with a board of `size` bytes whose header this is.
kj::Maybe<kj::String> fault(kj::StringPtr path, uint64_t size, const board::Header& header) {
  if (memcmp(header.magic, board::MAGIC, sizeof(board::MAGIC)) != 0) {
    return kj::str(path, ": is not a status board of Postern");
  }
  if (header.byteOrder != board::BYTE_ORDER_MARK) return kj::str(path, ": is of a machine with another byte order");
  if (header.layoutVersion != board::LAYOUT_VERSION) {
    return kj::str(path, ": has layout version ", header.layoutVersion, ", and this program reads ",
                   board::LAYOUT_VERSION, "; use the postern that was installed with posternd, and restart posternd");
  }
  if (header.headerBytes != board::HEADER_BYTES || header.slotBytes != board::SLOT_BYTES || header.capacity == 0 ||
      header.capacity > board::MAX_CAPACITY) {
    return kj::str(path, ": has a damaged header; restart posternd");
  }
  if (size < boardBytes(header.capacity)) {
    return kj::str(path, ": is cut short: ", size, " bytes, and its header promises ", boardBytes(header.capacity),
                   "; restart posternd");
  }
  return nullptr;
}

// The file that was looked at, and not what took its path since.
bool isSameFile(const struct stat& one, const struct stat& other) {
  return one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

}  // namespace

// T54
kj::OneOf<MappedBoard, kj::String> mapBoard(kj::StringPtr path, interprocess::mode_t mode) {
  // Looked at through a descriptor of our own: file_mapping would follow a symbolic link and wait for a FIFO's writer.
  int fd = ::open(path.cStr(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
  if (fd < 0) return cannotOpen(path, errno);
  kj::AutoCloseFd file(fd);
  struct stat info;
  if (fstat(file, &info) != 0) return cannotOpen(path, errno);
  if (!S_ISREG(info.st_mode)) return kj::str(path, ": is not a file");
  if (info.st_size < off_t(board::HEADER_BYTES)) {
    return kj::str(path, ": is not a status board of Postern, or cut short: ", info.st_size, " bytes");
  }
  try {
    interprocess::file_mapping mapping(path.cStr(), mode);
    struct stat mapped;
    if (fstat(mapping.get_mapping_handle().handle, &mapped) != 0) return cannotOpen(path, errno);
    if (!isSameFile(info, mapped)) return kj::str(path, ": was replaced this very moment; try again");
    interprocess::mapped_region header(mapping, mode, 0, board::HEADER_BYTES);
    board::Header copy;  // read once: what was checked is what is used
    memcpy(static_cast<void*>(&copy), header.get_address(), sizeof(copy));
    KJ_IF_MAYBE (text, fault(path, uint64_t(mapped.st_size), copy)) return kj::mv(*text);
    interprocess::mapped_region region(mapping, mode, 0, boardBytes(copy.capacity));
    return MappedBoard{kj::mv(region), copy.capacity};
  } catch (const interprocess::interprocess_exception& e) {
    return cannotOpen(path, e.get_native_error());
  }
}

}  // namespace postern::host
