#pragma once
// SourceSender: says to the mover what a SourceTree meets. Small files are read into their entries; of larger ones, an
// open descriptor goes with the entry.

#include "transport/transfer/linked-files.h"
#include "transport/transfer/source-conversation.h"
#include "transport/transfer/source-entry.h"
#include "transport/transfer/source-tree.h"

namespace postern::transfer {

class SourceSender final : public SourceVisitor {
 public:
  // `announced` is what the other end will hold this one to: of a tree that grows by more than the slack of limits.h
  // meanwhile, what is more is a problem.
  SourceSender(SourceTree& tree, const SourceOptions& options, const Totals& announced,
               SourceConversation& conversation, SourceListener& listener, OwnerNames& owners);

  bool directory(const SourcePlace& place, const struct stat& status, int descriptor) override;
  bool leave() override { return conversation.put(Forward(Leave())); }
  bool leaf(const SourcePlace& place, unsigned char type) override;
  bool failed(const SourcePlace& place, Problem problem) override;

  // Where the walk was ended by this and not by the conversation.
  kj::Maybe<Problem> gaveUp() { return kj::mv(ended); }

 private:
  SourceTree& tree;
  const SourceOptions& options;
  SourceConversation& conversation;
  SourceListener& listener;
  SourceEntry reader;
  SourceLinks links;
  uint64_t entriesLeft;
  uint64_t failuresLeft;
  uint64_t bytesLeft;
  kj::Maybe<Problem> ended;

  bool file(const SourcePlace& place);
  bool content(const SourcePlace& place, int descriptor, const struct stat& status, Entry entry);
  bool inlined(const SourcePlace& place, int descriptor, const struct stat& before, Entry entry);
  bool other(const SourcePlace& place, unsigned char type);
  bool symbolicLink(const SourcePlace& place, Entry entry);
  // Whether there is room in what was announced for so much more; takes it.
  bool takes(uint64_t bytes);
  bool grown(const SourcePlace& place);
};

}  // namespace postern::transfer
