#pragma once
// What a guest with real keys may do in a file transfer that means ill: it answers GuestCalls.file and then says on the
// bulk channel whatever its trick is, by the names in hostile-files.cpp.

#include <kj/async.h>
#include <kj/string.h>

#include "protocol/bulk-channel.h"

namespace postern::test {

// Resolves when the trick is done; the channel stays with the caller.
kj::Promise<void> playFileTrick(kj::StringPtr trick, BulkChannel& channel);
bool isFileTrick(kj::StringPtr trick);

}  // namespace postern::test
