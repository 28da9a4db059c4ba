#pragma once
// A folder of the test's own, gone with it.

#include <kj/debug.h>
#include <kj/string.h>
#include <stdlib.h>

#include <filesystem>

namespace postern::test {

class TemporaryFolder {
 public:
  TemporaryFolder() {
    char pattern[] = "/tmp/postern-test-XXXXXX";
    KJ_ASSERT(mkdtemp(pattern) != nullptr);
    folder = kj::str(pattern);
  }
  ~TemporaryFolder() { std::filesystem::remove_all(folder.cStr()); }
  KJ_DISALLOW_COPY(TemporaryFolder);

  kj::String path(kj::StringPtr name) const { return kj::str(folder, "/", name); }

 private:
  kj::String folder;
};

}  // namespace postern::test
