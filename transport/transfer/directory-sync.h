#pragma once
// What is written to the disk for good: files that wait for their names together, and at the end of a transfer the
// directories in which names were made.

#include <kj/io.h>
#include <kj/vector.h>

#include "transport/transfer/destination-folder.h"

namespace postern::transfer {

// Up to so many are synced one by one; more of them by their file system at once: that costs one commit of its journal,
// and whatever others have written.
constexpr size_t SYNCED_SINGLY = 8;

class DirectorySync {
 public:
  // A directory that is not going to change any more.
  void add(kj::AutoCloseFd directory, uint64_t device);
  // 0, or errno of the first that failed.
  int sync();

 private:
  // What is mounted in a tree; beyond that, a file system is synced for each directory of it.
  static constexpr size_t MAX_SYSTEMS = 16;

  struct Directory {
    kj::AutoCloseFd descriptor;
    uint64_t device;
  };
  kj::Vector<Directory> directories;  // one by one
  kj::Vector<Directory> systems;      // of many directories: one of each file system
  int failure = 0;                    // errno of the first

  void addSystem(Directory directory);
};

}  // namespace postern::transfer
