#pragma once
// Opening a file that nobody else may read, for StateFile (protocol/state-file.h), which does the checking. Never
// follows a symbolic link in the last component, never blocks on a FIFO.

#include <kj/io.h>
#include <kj/one-of.h>
#include <kj/string.h>

#include "protocol/state-file.h"

namespace postern {

enum class PrivateFileMode {
  EXISTING,  // it must be there
  CREATE,    // made with mode 0600 if it is not there
};

// The opened state, or one line for a person that names the path and says what to do. The owner must be this process's
// effective user.
kj::OneOf<StateFile, kj::String> openStateFile(kj::StringPtr path, PrivateFileMode mode);

}  // namespace postern
