#pragma once
// postern, the program, on any World.

#include <kj/array.h>

#include "host/cli/exit-status.h"
#include "host/cli/world.h"

namespace postern::cli {

// `words` without the program's name. Everything is printed when this returns.
ExitStatus runPostern(World& world, kj::ArrayPtr<const kj::StringPtr> words);

}  // namespace postern::cli
