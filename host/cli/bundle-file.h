#pragma once
// BundleFile: the file that a bundle is given out in. A secret: mode 0600 from its first moment, whatever the umask is,
// and nobody else's file or symbolic link is ever written through. It has its name and content only when keep() has
// returned; an object that goes without it leaves nothing behind, and an older file as it was.

#include <kj/io.h>
#include <kj/string.h>

namespace postern::cli {

enum class Existing { REFUSED, REPLACED };

class BundleFile {
 public:
  // `path` is absolute. Ends the command (CommandFailure) if the file is there and may not be replaced, or cannot be
  // made.
  BundleFile(kj::StringPtr path, Existing existing);
  ~BundleFile() noexcept(false);
  KJ_DISALLOW_COPY(BundleFile);

  // Writes `bundle` and a newline and gives the file its name.
  void keep(kj::StringPtr bundle);

  kj::StringPtr path() const { return finalPath; }

 private:
  const kj::String finalPath;
  const Existing existing;
  kj::String writtenPath;  // beside the final one until keep()
  kj::AutoCloseFd fd;
};

}  // namespace postern::cli
