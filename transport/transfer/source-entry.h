#pragma once
// What describes a file, read into an Entry: mode and times always; with `archive`, owner and extended attributes.

#include <sys/stat.h>

#include "protocol/transfer/entry.h"
#include "transport/transfer/owner-names.h"
#include "transport/transfer/source-opener.h"

namespace postern::transfer {

class SourceEntry {
 public:
  SourceEntry(const SourceOptions& options, OwnerNames& owners);

  // Without content, target or links.
  Entry describe(kj::StringPtr as, const struct stat& status);
  // Of an open file or directory. A problem if there is more of it than may travel: then the entry has none.
  kj::Maybe<Problem> readAttributes(int descriptor, Entry& entry);

 private:
  bool archive;
  bool named;    // owners by name
  bool special;  // set-id bits and security attributes, too
  OwnerNames& owners;
  kj::Array<char> names;
  kj::Array<kj::byte> value;

  bool takes(kj::StringPtr attribute) const;
};

}  // namespace postern::transfer
