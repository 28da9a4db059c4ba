#include "tests/unit/transport/temp-dir.h"
#include "tests/support/comes-to.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <kj/io.h>
#include <sys/stat.h>
#include <unistd.h>

namespace postern {

namespace {

TEST_CASE("a test's folder is private and leaves nothing behind") {
  kj::String path;
  {
    TempDir dir;
    path = kj::str(dir.path());
    struct stat info;
    REQUIRE(stat(path.cStr(), &info) == 0);
    CHECK((info.st_mode & 07777) == 0700);
    kj::AutoCloseFd fd(open(dir.file("left").cStr(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    CHECK(fd.get() >= 0);
  }
  CHECK(access(path.cStr(), F_OK) == -1);
}

TEST_CASE("the count of descriptors sees one more and one less") {
  size_t before = test::settled(openDescriptors);
  {
    kj::AutoCloseFd fd(open("/dev/null", O_RDONLY | O_CLOEXEC));
    CHECK(openDescriptors() == before + 1);
  }
  CHECK(openDescriptors() == before);
}

}  // namespace
}  // namespace postern
