#pragma once
// SecretFile: the file that a bundle, or an export of a VM, is given out in. Mode 0600 from its first moment, whatever
// the umask is, and nobody else's file or symbolic link is ever written through. It has its name and content only when
// keep() has returned; an object that goes without it leaves nothing behind, and an older file as it was.

#include <kj/io.h>
#include <kj/string.h>

namespace postern::cli {

enum class Existing { REFUSED, REPLACED };

class SecretFile {
 public:
  // For errors: "the bundle", and the option that names another file.
  struct Words {
    kj::StringPtr content;
    kj::StringPtr option;
  };
  // `path` is absolute. Ends the command (CommandFailure) if the file is there and may not be replaced, or cannot be
  // made.
  SecretFile(kj::StringPtr path, Existing existing, Words words);
  ~SecretFile() noexcept(false);
  KJ_DISALLOW_COPY(SecretFile);

  // Writes `content` and a newline, to the disk, and gives the file its name.
  void keep(kj::StringPtr content);

  kj::StringPtr path() const { return finalPath; }

 private:
  const kj::String finalPath;
  const Existing existing;
  const Words words;
  kj::String writtenPath;  // beside the final one until keep()
  kj::AutoCloseFd fd;

  [[noreturn]] void fail(int error) const;
  [[noreturn]] void failExisting() const;
};

}  // namespace postern::cli
