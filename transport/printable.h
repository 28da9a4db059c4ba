#pragma once
// Text of others, fit for one line of an error: bounded, and without control characters.

#include <kj/string.h>

namespace postern {

// Printable ASCII stays, every other byte becomes `?`; what is over `maxBytes` becomes `...`.
kj::String printable(kj::ArrayPtr<const char> untrusted, size_t maxBytes = 40);

}  // namespace postern
