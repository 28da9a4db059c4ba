#pragma once
// What a tree announces before anything of it is sent. A file with several names counts once where the others are sent
// as links. What cannot be looked at counts as an entry: it will be told as one that failed.

#include "transport/transfer/linked-files.h"
#include "transport/transfer/source-tree.h"

namespace postern::transfer {

class SourceCount final : public SourceVisitor {
 public:
  // `goesOn` is asked from time to time; false ends the count.
  SourceCount(SourceTree& tree, const SourceOptions& options, kj::Function<bool()> goesOn)
      : tree(tree), options(options), goesOn(kj::mv(goesOn)) {}

  const Totals& totals() const { return counted; }

  bool directory(const SourcePlace& place, const struct stat& status, int descriptor) override;
  bool leave() override { return true; }
  bool leaf(const SourcePlace& place, unsigned char type) override;
  bool failed(const SourcePlace& place, Problem problem) override;

 private:
  static constexpr uint64_t FILES_PER_LOOK = 4096;

  SourceTree& tree;
  const SourceOptions& options;
  kj::Function<bool()> goesOn;
  Totals counted;
  SourceLinks links;
};

}  // namespace postern::transfer
