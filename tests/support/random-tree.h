#pragma once
// A tree of everything that a copy must preserve, different for each seed: names of every byte, empty files and
// directories, holes, deep paths, hard and symbolic links, FIFOs, odd modes and times, extended attributes.

#include <kj/string.h>
#include <stdint.h>

namespace postern::test {

struct RandomTreeOptions {
  uint64_t seed = 1;
  unsigned entries = 300;
  unsigned depth = 120;    // of the deepest directory
  bool largeFiles = true;  // some of more than 1 MiB
};

// Makes the directory `path` and fills it.
void makeRandomTree(kj::StringPtr path, const RandomTreeOptions& options);

}  // namespace postern::test
