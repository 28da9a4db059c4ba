#pragma once
// Names and paths of any bytes, as people and as programs see them.

#include "transport/json-writer.h"

namespace postern::cli {

// What a terminal shows of letters that are not ASCII.
enum class Letters : uint8_t { ASCII, UTF8 };

// As `ls -b` writes it: control characters, and what is no text, as \n, \t, \033; a backslash and a space with a
// backslash before them. A shell takes it for the same name where it has no control characters.
kj::String escapedName(kj::ArrayPtr<const char> untrusted, Letters letters);
// The same for a line of an error, where a space stays a space.
kj::String shownPath(kj::ArrayPtr<const char> untrusted, Letters letters);

// As a word of a shell, for a line that is to be copied: quoted where it must be. Printable.
kj::String shellWord(kj::StringPtr word, Letters letters);

// "name": its text; or, of bytes that are no UTF-8, "nameBase64".
void writeName(JsonWriter& json, kj::StringPtr key, kj::StringPtr untrusted);

}  // namespace postern::cli
