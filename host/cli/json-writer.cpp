#include "host/cli/json-writer.h"

#include <kj/debug.h>
#include <math.h>
#include <stdio.h>

namespace postern::cli {

namespace {

constexpr uint32_t REPLACEMENT = 0xfffd;

// Takes one character off the front of `rest`. What is not UTF-8 (RFC 3629: overlong forms, surrogates and what lies
// above U+10FFFF are not) costs one byte and gives REPLACEMENT.
uint32_t takeCharacter(kj::ArrayPtr<const char>& rest) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(rest[i]); };
  auto first = byte(0);
  size_t more = first < 0x80                    ? 0
                : first >= 0xc2 && first < 0xe0 ? 1
                : (first & 0xf0) == 0xe0        ? 2
                : first >= 0xf0 && first < 0xf5 ? 3
                                                : 4;
  uint32_t character = more == 0 ? first : first & (0x3fu >> more);
  bool valid = more < 4 && more < rest.size();
  for (size_t i = 1; valid && i <= more; ++i) {
    valid = (byte(i) & 0xc0) == 0x80;
    character = character << 6 | (byte(i) & 0x3fu);
  }
  constexpr uint32_t LOWEST[] = {0, 0x80, 0x800, 0x10000};
  valid = valid && character >= LOWEST[more] && character <= 0x10ffff && (character < 0xd800 || character > 0xdfff);
  rest = rest.slice(valid ? more + 1 : 1, rest.size());
  return valid ? character : REPLACEMENT;
}

kj::String escaped(uint32_t unit) {
  char out[8];
  snprintf(out, sizeof(out), "\\u%04x", unit & 0xffff);
  return kj::str(static_cast<const char*>(out));
}

}  // namespace

JsonWriter& JsonWriter::key(kj::StringPtr name) {
  KJ_REQUIRE(!nesting.empty() && nesting.back() == '{' && !afterKey, "no key may stand here", name);
  if (needsComma) text.add(',');
  quoted(name);
  text.add(':');
  needsComma = false;
  afterKey = true;
  return *this;
}

void JsonWriter::beforeValue() {
  KJ_REQUIRE(nesting.empty() ? text.empty() : (nesting.back() == '{') == afterKey, "no value may stand here");
  if (needsComma) text.add(',');
  needsComma = true;
  afterKey = false;
}

JsonWriter& JsonWriter::value(kj::StringPtr content) {
  beforeValue();
  quoted(content);
  return *this;
}

JsonWriter& JsonWriter::value(double number) {
  return isfinite(number) ? raw(kj::str(number)) : null();
}

JsonWriter& JsonWriter::raw(kj::StringPtr token) {
  beforeValue();
  text.addAll(token);
  return *this;
}

JsonWriter& JsonWriter::open(char bracket) {
  beforeValue();
  text.add(bracket);
  nesting.add(bracket);
  needsComma = false;
  return *this;
}

JsonWriter& JsonWriter::close(char opened, char bracket) {
  KJ_REQUIRE(!nesting.empty() && nesting.back() == opened && !afterKey, "nothing to close");
  text.add(bracket);
  nesting.removeLast();
  needsComma = true;
  return *this;
}

void JsonWriter::quoted(kj::StringPtr untrusted) {
  text.add('"');
  for (auto rest = untrusted.asArray(); rest.size() > 0;) {
    auto character = takeCharacter(rest);
    if (character == '"' || character == '\\') {
      text.add('\\');
      text.add(static_cast<char>(character));
    } else if (character >= ' ' && character <= '~') {
      text.add(static_cast<char>(character));
    } else if (character > 0xffff) {
      text.addAll(escaped(0xd7c0 + (character >> 10)));
      text.addAll(escaped(0xdc00 + (character & 0x3ff)));
    } else {
      text.addAll(escaped(character));
    }
  }
  text.add('"');
}

kj::String JsonWriter::finish() {
  KJ_REQUIRE(nesting.empty() && !text.empty(), "the document is not complete");
  return kj::heapString(text);
}

}  // namespace postern::cli
