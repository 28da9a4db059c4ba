#pragma once
// Texts within errors and within TOML that Postern writes.

#include <kj/array.h>
#include <kj/string.h>

namespace postern::policy {

// 'text' for one line of an error: at most 60 bytes of it, control characters as '?'.
kj::String quote(kj::StringPtr text);

// A TOML basic string that reads back as `text` (valid UTF-8), with its quotes.
kj::String tomlString(kj::StringPtr text);
// One string as such, several as a TOML array.
kj::String tomlStrings(kj::ArrayPtr<const kj::String> texts);

// The nearest of the known names, if one is near enough to be meant.
kj::Maybe<kj::StringPtr> nearest(kj::StringPtr text, kj::ArrayPtr<const kj::StringPtr> known);
// "; did you mean 'from'?", or nothing.
kj::String didYouMean(kj::StringPtr text, kj::ArrayPtr<const kj::StringPtr> known);

}  // namespace postern::policy
