#pragma once
// DirectoryReader: the names in one directory, in the order in which the file system has them. Memory does not grow
// with their number.

#include <dirent.h>
#include <kj/io.h>
#include <kj/string.h>

namespace postern::transfer {

class DirectoryReader {
 public:
  // `directory` is open for reading, and serves as a handle for what is in it meanwhile.
  explicit DirectoryReader(kj::AutoCloseFd directory);
  ~DirectoryReader() noexcept(false);
  DirectoryReader(DirectoryReader&& other) noexcept : stream(other.stream), failure(other.failure) {
    other.stream = nullptr;
  }
  KJ_DISALLOW_COPY(DirectoryReader);

  struct Name {
    kj::StringPtr name;  // until the next call
    unsigned char type;  // DT_*, DT_UNKNOWN where the file system does not say
  };
  // Without "." and ".."; null: no more, or error().
  kj::Maybe<Name> next();
  int error() const { return failure; }
  void rewind();

  int descriptor() const { return dirfd(stream); }

 private:
  DIR* stream;
  int failure = 0;
};

}  // namespace postern::transfer
