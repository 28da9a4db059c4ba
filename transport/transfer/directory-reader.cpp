#include "transport/transfer/directory-reader.h"

#include <errno.h>
#include <kj/debug.h>
#include <string.h>

namespace postern::transfer {

namespace {

bool isDots(const char* name) {
  return name[0] == '.' && (name[1] == '\0' || (name[1] == '.' && name[2] == '\0'));
}

}  // namespace

DirectoryReader::DirectoryReader(kj::AutoCloseFd directory) : stream(fdopendir(directory)) {
  KJ_REQUIRE(stream != nullptr, "not a directory that is open for reading", strerror(errno));
  directory.release();
}

DirectoryReader::~DirectoryReader() noexcept(false) {
  if (stream != nullptr) closedir(stream);
}

kj::Maybe<DirectoryReader::Name> DirectoryReader::next() {
  while (stream != nullptr) {
    errno = 0;
    const dirent* entry = readdir(stream);
    if (entry == nullptr) {
      failure = errno;
      return nullptr;
    }
    if (!isDots(entry->d_name)) return Name{entry->d_name, entry->d_type};
  }
  return nullptr;
}

void DirectoryReader::rewind() {
  if (stream != nullptr) rewinddir(stream);
}

}  // namespace postern::transfer
