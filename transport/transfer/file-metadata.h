#pragma once
// What describes a file, given to an open file or directory at the destination: mode and modification time always;
// with `archive` owner, if that may be given, and extended attributes. Set-id and sticky bits, security.* and trusted.*
// are left out unless `special`: quietly, since a source cannot know.

#include "protocol/transfer/entry.h"
#include "transport/transfer/owner-names.h"

namespace postern::transfer {

class FileMetadata {
 public:
  struct Options {
    bool archive;
    bool keepOwner;
    bool special;
  };
  FileMetadata(Options options, OwnerNames& owners) : options(options), owners(owners) {}

  bool special() const { return options.special; }

  // Everything that can be done is; the first that could not is told. The file is complete all the same.
  kj::Maybe<Problem> apply(int descriptor, const Entry& entry);
  // The same for what is not opened but named: a symbolic link, a FIFO, a device.
  kj::Maybe<Problem> applyTo(int folder, kj::StringPtr name, const Entry& entry);

 private:
  Options options;
  OwnerNames& owners;
  kj::Array<char> names;

  struct Ids {
    uint32_t uid;
    uint32_t gid;
  };
  Ids ids(const Entry& entry);
  bool takes(kj::StringPtr attribute) const;
  kj::Maybe<Problem> attributes(int descriptor, const Entry& entry);
  // What a new file got from its folder, or an old one had, and the source has not.
  void removeOthers(int descriptor, const Entry& entry);
};

}  // namespace postern::transfer
