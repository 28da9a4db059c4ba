#pragma once
// FileMaker: files that are written first and named afterwards. A file has no name while it is written (O_TMPFILE)
// where the file system can, else, and if it is to be kept when it is interrupted, it is a PartialFile. At every moment
// the name is the old file, the new one, or nothing.

#include "transport/transfer/destination-folder.h"
#include "transport/transfer/destination-opener.h"

namespace postern::transfer {

// Destroyed before it has its name, it is gone; but one that may be resumed stays, if that is worth it.
class NewFile {
 public:
  NewFile(kj::Own<DestinationFolder> folder, kj::String name, kj::AutoCloseFd descriptor, kj::String partial);
  NewFile(NewFile&&) = default;
  ~NewFile() noexcept(false);
  KJ_DISALLOW_COPY(NewFile);

  int descriptor() const { return opened; }
  // It holds what an earlier transfer left.
  bool isResumed() const { return resumed; }
  // What is in it counts for nothing: it is not kept.
  void spoil() { keep = false; }

 private:
  friend class FileMaker;

  kj::Own<DestinationFolder> folder;
  kj::String name;
  kj::AutoCloseFd opened;
  kj::String partial;  // empty: it has no name
  bool keep = false;
  bool resumed = false;
};

enum class IfInterrupted { GONE, KEPT };
enum class Existing { REPLACE, STAYS };

class FileMaker {
 public:
  explicit FileMaker(Existing existing);
  KJ_DISALLOW_COPY(FileMaker);

  kj::OneOf<NewFile, Problem> open(DestinationFolder& folder, kj::StringPtr name, IfInterrupted ifInterrupted,
                                   bool resume);

  // Gives it its name. Everything else was done before.
  kj::Maybe<Problem> place(NewFile& file);
  // Makes what has no content: `make` gives a name to it in the folder, 0 or errno; `describe` follows it. Where the
  // name is taken, under a partial name that is then renamed.
  kj::Maybe<Problem> make(DestinationFolder& folder, kj::StringPtr name, kj::FunctionParam<int(kj::StringPtr)> make,
                          kj::FunctionParam<void(kj::StringPtr)> describe);
  // A further name for the open file. 0 or errno.
  int link(int descriptor, int folder, kj::StringPtr name) const;

 private:
  Existing existing;
  kj::AutoCloseFd descriptors;  // /proc/self/fd; null: there is none, and so no file without a name

  int placeUnnamed(NewFile& file);
  int placePartial(NewFile& file);
};

}  // namespace postern::transfer
