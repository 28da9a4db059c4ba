#pragma once
// PrivateFolder: a temporary folder of this user's alone (0700), gone with this object, with everything that was put in
// it, whatever its modes are. Symbolic links in it are removed and not followed.

#include <kj/io.h>
#include <kj/string.h>

namespace postern::cli {

class PrivateFolder {
 public:
  // Below `parent`; throws if it cannot be made.
  explicit PrivateFolder(kj::StringPtr parent);
  ~PrivateFolder() noexcept(false);
  KJ_DISALLOW_COPY(PrivateFolder);

  kj::StringPtr path() const { return folder; }
  kj::AutoCloseFd open() const;

 private:
  kj::String folder;
};

}  // namespace postern::cli
