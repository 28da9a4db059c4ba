#include "transport/json-writer.h"

#include <kj/debug.h>
#include <math.h>
#include <stdio.h>

#include "transport/utf8.h"

namespace postern {

namespace {

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
  bool mayStand = nesting.empty() ? text.empty() : (nesting.back() == '{') == afterKey;
  KJ_REQUIRE(mayStand, "no value may stand here");
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
    auto character = takeCharacter(rest).orDefault(REPLACEMENT_CHARACTER);
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

kj::String JsonWriter::take() {
  auto taken = kj::heapString(text);
  text.clear();
  return taken;
}

kj::String JsonWriter::finish() {
  KJ_REQUIRE(nesting.empty() && !text.empty(), "the document is not complete");
  return kj::heapString(text);
}

}  // namespace postern
