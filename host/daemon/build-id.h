#pragma once
// The identity that the linker gave a program (the note .note.gnu.build-id): the same for the same bytes, another one
// for another build, whatever the file is called and whenever it was written.

#include <kj/string.h>

namespace postern::host {

// In hexadecimal digits; empty if there is no such program, or it has none.
kj::String buildIdOf(kj::StringPtr program);

}  // namespace postern::host
