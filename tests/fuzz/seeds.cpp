// fuzz-seeds FOLDER: writes the seeds of all targets to FOLDER/TARGET/NAME. What it writes is the same in every run, so
// that a change of the wire form shows in the tree as changed seeds.

#include <kj/debug.h>
#include <stdio.h>

#include <filesystem>
#include <fstream>

#include "tests/fuzz/seed.h"

namespace postern::fuzz {

SeedFolder::SeedFolder(kj::StringPtr root, kj::StringPtr target) : path(kj::str(root, "/", target)) {
  std::filesystem::create_directories(path.cStr());
}

void SeedFolder::write(kj::StringPtr name, kj::ArrayPtr<const kj::byte> bytes) {
  auto file = kj::str(path, "/", name);
  std::ofstream out(file.cStr(), std::ios::binary | std::ios::trunc);
  out.write(reinterpret_cast<const char*>(bytes.begin()), static_cast<std::streamsize>(bytes.size()));
  out.close();
  KJ_REQUIRE(out.good(), "cannot write", file);
}

}  // namespace postern::fuzz

int main(int argc, char** argv) {
  if (argc != 2) {
    fprintf(stderr, "usage: fuzz-seeds FOLDER (tests/fuzz/corpus)\n");
    return 2;
  }
  postern::fuzz::writeWireSeeds(argv[1]);
  postern::fuzz::writeSessionSeeds(argv[1]);
  postern::fuzz::writeTransferSeeds(argv[1]);
  postern::fuzz::writeExportSeeds(argv[1]);
  return 0;
}
