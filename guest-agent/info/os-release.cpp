#include "guest-agent/info/os-release.h"

#include <kj/vector.h>

namespace postern::guest {

namespace {

kj::String unquote(kj::ArrayPtr<const char> value) {
  bool quoted = value.size() >= 2 && (value[0] == '"' || value[0] == '\'') && value[value.size() - 1] == value[0];
  if (!quoted) return kj::heapString(value);
  bool escapes = value[0] == '"';
  value = value.slice(1, value.size() - 1);
  kj::Vector<char> out;
  for (size_t i = 0; i < value.size(); ++i) {
    if (escapes && value[i] == '\\' && i + 1 < value.size()) ++i;
    out.add(value[i]);
  }
  return kj::heapString(out.asPtr());
}

}  // namespace

kj::String osReleaseValue(kj::StringPtr text, kj::StringPtr key) {
  kj::String found;
  size_t begin = 0;
  for (size_t i = 0; i <= text.size(); ++i) {
    if (i < text.size() && text[i] != '\n') continue;
    auto line = text.asArray().slice(begin, i);
    begin = i + 1;
    bool matches = line.size() > key.size() && line[key.size()] == '=' && line.slice(0, key.size()) == key.asArray();
    if (matches) found = unquote(line.slice(key.size() + 1, line.size()));
  }
  return found;
}

}  // namespace postern::guest
