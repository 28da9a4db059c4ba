#include "host/daemon/build-id.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <kj/filesystem.h>

#include "host/files/files.h"
#include "tests/support/temporary-folder.h"

namespace postern::host {
namespace {

kj::Array<kj::byte> ownProgram() {
  auto disk = kj::newDiskFilesystem();
  return disk->getRoot().openFile(kj::Path({"proc", "self", "exe"}))->readAllBytes();
}

kj::String idOf(kj::ArrayPtr<const kj::byte> program) {
  postern::test::TemporaryFolder folder;
  auto path = folder.path("program");
  KJ_REQUIRE(replaceFile(path, kj::heapString(program.asChars()), 0755, Lasting::UNTIL_REBOOT) == nullptr);
  return buildIdOf(path);
}

TEST_CASE("a program has the same build id wherever its bytes are") {
  auto own = buildIdOf("/proc/self/exe");
  CHECK(own.size() >= 16);
  CHECK((idOf(ownProgram()) == own));
}

TEST_CASE("what is no program, or is cut short anywhere in its head, has none, or its own") {
  CHECK((buildIdOf("/does/not/exist") == ""));
  CHECK((buildIdOf("/dev/null") == ""));
  CHECK((buildIdOf("/etc/passwd") == ""));
  auto own = buildIdOf("/proc/self/exe");
  auto program = ownProgram();
  for (size_t size = 0; size < 1200; size += 7) {
    auto found = idOf(program.slice(0, size));
    CHECK((found == "" || found == own));
  }
}

}  // namespace
}  // namespace postern::host
