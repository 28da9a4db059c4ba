#pragma once
// DestinationTree: makes what a transfer brings, entry by entry, below one folder. Small files are written and wait in
// a GroupCommit; of larger ones the mover gets the descriptor, and says when they are whole.

#include "protocol/transfer/opener-message.h"
#include "transport/transfer/destination-conversation.h"
#include "transport/transfer/destination-opener.h"
#include "transport/transfer/directory-sync.h"
#include "transport/transfer/file-metadata.h"
#include "transport/transfer/group-commit.h"

namespace postern::transfer {

class DestinationTree final : private GroupCommit::Owner {
 public:
  DestinationTree(kj::AutoCloseFd folder, const DestinationOptions& options, DestinationListener& listener,
                  DestinationConversation& conversation, OwnerNames& owners);
  KJ_DISALLOW_COPY(DestinationTree);

  // Null: there is room for it.
  kj::Maybe<Problem> announced(const Totals& totals);
  // All of these in the order of a ForwardCheck.
  void entry(Entry entry, kj::ArrayPtr<const kj::byte> content);
  void leave();
  void failedAtSource(const EntryFailed& failed);
  // Of a file whose descriptor was handed out; one that had failed here before is passed over.
  kj::Maybe<Problem> commit(Commit commit);
  // The mover has received so many bytes of content in all.
  void received(uint64_t content) { summary.sentBytes = kj::max(summary.sentBytes, content); }

  // A stream has no size that could be judged when it comes. Null: what has come of it is within the quotas. Otherwise
  // it has failed, and whoever writes to it must be stopped.
  kj::Maybe<Problem> streamOverQuota();

  // Whether files wait for their names.
  bool waits() const { return !group.isEmpty(); }
  // They get them.
  void flush() { group.flush(); }
  // Files that the mover writes to.
  bool hasOpen() const { return !open.empty(); }
  uint64_t openBytes() const;
  Progress progress(uint64_t entriesSeen) const;

  // Everything is there and on the disk.
  Summary finish();

 private:
  // More files than that are not open at one time.
  static constexpr size_t MAX_OPEN = 64;

  // An entry while it is looked at.
  struct Arrival {
    uint64_t number;
    DestinationFolder& folder;
    kj::String path;       // from the top, as the source named it
    kj::String name;       // in `folder`
    kj::String scopePath;  // canonical; empty without a scope
    Entry entry;
  };
  struct OpenFile {
    uint64_t number;
    kj::Own<DestinationFolder> folder;
    kj::String path;
    kj::String name;
    Entry entry;
    NewFile file;
    kj::AutoCloseFd base;
  };

  const DestinationOptions& options;
  DestinationListener& listener;
  DestinationConversation& conversation;
  FileMetadata metadata;
  FileMaker maker;
  kj::Vector<kj::Own<DestinationFolder>> stack;  // the first is where the tops are
  HardLinks links;
  GroupCommit group;
  kj::Vector<kj::Own<OpenFile>> open;  // in the order of their numbers
  DirectorySync directories;
  Summary summary;
  uint64_t entries = 0;
  uint64_t bytes = 0;          // announced by entries
  kj::Maybe<uint64_t> single;  // what the one file that was announced needs

  Arrival arrival(Entry entry);
  kj::Maybe<Problem> refusal(const Arrival& arrival);
  kj::Maybe<Problem> overQuota(const Entry& entry);
  kj::Maybe<Problem> overQuota(uint64_t bytes, uint32_t deepest) const;
  void report(uint64_t number, kj::StringPtr path, const Problem& problem);
  void done(kj::StringPtr path, const Entry& entry);

  kj::Maybe<Problem> take(Arrival& arrival, kj::ArrayPtr<const kj::byte> content);
  kj::Maybe<Problem> directory(Arrival& arrival);
  void enterUnusable(Arrival& arrival, const Problem& why);
  kj::Maybe<Problem> smallFile(Arrival& arrival, kj::ArrayPtr<const kj::byte> content);
  kj::Maybe<Problem> largeFile(Arrival& arrival);
  kj::Maybe<Problem> special(Arrival& arrival);
  void hardLink(Arrival& arrival);

  void whole(kj::Own<OpenFile> file, bool synced);
  void unchanged(OpenFile& file);
  void named(GroupCommit::Item& item, bool hasName, kj::Maybe<Problem> problem) override;
  // Of what was waited for in it, one does not have to be waited for any more.
  void settled(DestinationFolder& folder);
  void finishFolder(DestinationFolder& folder);
};

}  // namespace postern::transfer
