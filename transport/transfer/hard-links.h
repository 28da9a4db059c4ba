#pragma once
// HardLinks: further names for files of this transfer, and of no other: the file that has the name by now must be the
// one that this transfer gave it.

#include "transport/transfer/linked-files.h"
#include "transport/transfer/new-file.h"

namespace postern::transfer {

class HardLinks {
 public:
  // `top`: what the one top is called here, if not as it was sent; else empty.
  HardLinks(int root, kj::StringPtr top) : root(root), top(kj::str(top)) {}

  // The file that got its name under this path.
  void remember(kj::StringPtr path, int descriptor);
  kj::Maybe<Problem> make(FileMaker& maker, DestinationFolder& folder, kj::StringPtr name,
                          kj::ArrayPtr<const kj::String> linkTo);

 private:
  int root;
  kj::String top;
  DestinationLinks links;

  kj::AutoCloseFd find(kj::ArrayPtr<const kj::String> components) const;
};

}  // namespace postern::transfer
