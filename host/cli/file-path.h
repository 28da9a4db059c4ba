#pragma once
// FilePath: a word of the command line that names a file, here or in a VM, as in scp: `VM:/path` is in a VM when a VM's
// name stands before the first ':' and no '/' before that; "./a:b" is here; "-" is standard input or output.
//
// A path in a VM is made canonical as text: "//" and "." go. ".." is refused, because what it means depends on symbolic
// links that only the guest knows. A path here is left as it is: the system reads it.

#include <kj/one-of.h>
#include <kj/string.h>

namespace postern::cli {

struct FilePath {
  kj::String vm;         // empty: here
  kj::String path;       // in a VM: canonical
  bool slash = false;    // it ended with a slash, or "/.": it must be a directory
  bool content = false;  // it ended with "/.", or is ".": what is in the directory
  bool stream = false;   // "-"

  bool isRemote() const { return vm.size() > 0; }
  // The last component; empty: "/".
  kj::String name() const;
  // As it may be written again.
  kj::String written() const;
  FilePath clone() const;
};

// Or what is wrong with it, and what to write instead.
kj::OneOf<FilePath, kj::String> parseFilePath(kj::StringPtr word);

// A path that begins with the name of a transfer's top, which is `remote`, whatever the guest calls it: as the user
// would write it.
kj::String pathBelow(const FilePath& remote, kj::StringPtr untrustedPath);

}  // namespace postern::cli
