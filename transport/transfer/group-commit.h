#pragma once
// GroupCommit: files that are written and wait for their names, until so many have come together that one wait for the
// disk serves them all; and hard links to them. In the order in which they came.

#include <kj/time.h>
#include <kj/vector.h>

#include "transport/transfer/hard-links.h"
#include "transport/transfer/new-file.h"

namespace postern::transfer {

class GroupCommit {
 public:
  struct Item {
    uint64_t entry;
    kj::Own<DestinationFolder> folder;
    kj::String path;
    kj::String name;
    Entry description;
    kj::Maybe<NewFile> file = nullptr;  // null: a hard link
    uint64_t bytes = 0;                 // of content
    bool synced = false;
    kj::Maybe<Problem> complaint = nullptr;  // it is complete but for this
    kj::Maybe<Problem> lost = nullptr;       // it did not reach the disk
  };
  // Told of each item, in their order: it has its name, perhaps with a complaint; or it has none, and why.
  class Owner {
   public:
    virtual void named(Item& item, bool hasName, kj::Maybe<Problem> problem) = 0;
  };
  enum class Verify { NO, YES };

  GroupCommit(FileMaker& maker, HardLinks& links, Verify verify, Owner& owner)
      : maker(maker), links(links), verify(verify), owner(owner) {}
  KJ_DISALLOW_COPY(GroupCommit);

  void add(Item item);
  bool isEmpty() const { return items.empty(); }
  bool isFull() const;
  // Of the first.
  uint64_t firstEntry() const { return items[0].entry; }
  // Everything gets its name.
  void flush();

 private:
  FileMaker& maker;
  HardLinks& links;
  Verify verify;
  Owner& owner;
  kj::Vector<Item> items;
  uint64_t unsyncedBytes = 0;
  kj::Array<kj::byte> readBack;

  void sync();
  bool syncSystems();
  kj::Maybe<Problem> place(Item& item);
  kj::Maybe<Problem> compare(int descriptor, const Entry& description);
};

}  // namespace postern::transfer
