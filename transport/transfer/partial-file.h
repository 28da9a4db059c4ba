#pragma once
// A file that is not whole yet and has a name all the same: partialName(name), beside the one that it will get, mode
// 0600. Whoever writes to it holds a lock on it (flock), so that two transfers to one file do not mix; and whoever
// finds one that nobody has locked may use it or remove it.

#include <kj/io.h>
#include <kj/one-of.h>

#include "protocol/transfer/problem.h"
#include "transport/transfer/destination-opener.h"

namespace postern::transfer {

struct PartialFile {
  kj::AutoCloseFd descriptor;  // for reading and writing, locked
  bool resumed;                // it holds what an earlier transfer left
};

enum class Leftover { USE, EMPTY };

// Makes it, or takes over what is left of an earlier transfer. BUSY: somebody else writes to it.
kj::OneOf<PartialFile, Problem> openPartial(int folder, kj::StringPtr partial, Leftover leftover);

// Whether the name in the folder is the open file's, so that renaming or removing it is about that file.
bool isNamed(int descriptor, int folder, kj::StringPtr name);

// Whether partialName() makes such names. They are Postern's: a transfer brings no file under one, since what is there
// is taken over, replaced or removed by the next transfer to the name that it is made of.
bool isPartialName(kj::StringPtr name);

// Makes the name `partial` free, if nobody writes to what has it. 0, or errno: EBUSY.
int clearPartial(int folder, kj::StringPtr partial);

}  // namespace postern::transfer
