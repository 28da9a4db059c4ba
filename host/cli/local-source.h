#pragma once
// What a copy reads here: paths as the user wrote them, to directory handles and names for the opener.

#include "host/cli/file-path.h"
#include "host/client/transfer-watch.h"

namespace postern::cli {

struct LocalSources {
  kj::Vector<transfer::SourceTop> tops;
  kj::Vector<client::EntryProblem> problems;  // of those that cannot be copied; the others can
  bool intoDirectory = false;                 // one of them is a directory's content ("."): it needs a directory
};

// Of `sources`, all of them here. A symbolic link that was named is followed, but with `archive`. Two of the same name
// would become one file: the second is a problem.
LocalSources openSources(int currentFolder, kj::ArrayPtr<const FilePath> sources, bool recursive, bool archive);

// An error of the system with a file here: why, and who asked, where that matters.
transfer::Problem localProblem(int error, kj::StringPtr what);

}  // namespace postern::cli
