#pragma once
// TOML as a small tree, each value and key with its line. The only door to toml++, which no other file includes.
//
// For any bytes. Beside what TOML forbids (invalid UTF-8, control characters, a key twice) these are refused, since a
// policy needs none of them and each would make the reader's memory or stack depend on who wrote the text: texts over
// MAX_FILE_BYTES, brackets or dots nested deeper than MAX_NESTING, and strings over several lines.

#include <kj/array.h>
#include <kj/memory.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/vector.h>
#include <stdint.h>

namespace postern::policy {

struct TomlValue;

struct TomlEntry {
  kj::String key;
  unsigned line;
  kj::Own<TomlValue> value;
};
struct TomlTable {
  kj::Vector<TomlEntry> entries;  // in no particular order
};
struct TomlArray {
  kj::Vector<TomlValue> values;
};
struct TomlTime {
  int64_t seconds;  // since 1970, fractions cut off
};
struct TomlOther {
  kj::StringPtr what;  // "a number with a fraction", "a date without a time zone"
};

struct TomlValue {
  unsigned line;
  kj::OneOf<kj::String, int64_t, bool, TomlTime, TomlOther, TomlArray, TomlTable> content;
};
kj::StringPtr whatIs(const TomlValue& value);  // "a list"

struct TomlError {
  unsigned line;
  kj::String text;
};

kj::OneOf<TomlTable, TomlError> parseToml(kj::ArrayPtr<const char> untrusted);

}  // namespace postern::policy
