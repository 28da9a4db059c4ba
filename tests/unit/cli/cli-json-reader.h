#pragma once
// A strict reader of JSON (RFC 8259), for tests: written without a look at the writer, and unforgiving. Throws for what
// is no document.

#include <ctype.h>
#include <kj/debug.h>
#include <kj/memory.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/vector.h>
#include <stdlib.h>
#include <string.h>

namespace postern::test {

struct Json {
  struct Null {};
  struct Member;
  kj::OneOf<Null, bool, double, kj::String, kj::Vector<Json>, kj::Vector<kj::Own<Member>>> value;

  // Of an object; ends the test if it has none of that name.
  const Json& operator[](kj::StringPtr name) const;
  const Json& at(size_t index) const { return value.get<kj::Vector<Json>>()[index]; }
  kj::StringPtr text() const { return value.get<kj::String>(); }
  double number() const { return value.get<double>(); }
  bool flag() const { return value.get<bool>(); }
};
struct Json::Member {
  kj::String name;
  Json value;
};

inline const Json& Json::operator[](kj::StringPtr name) const {
  for (auto& member : value.get<kj::Vector<kj::Own<Member>>>()) {
    if (member->name == name) return member->value;
  }
  KJ_FAIL_REQUIRE("no such member", name);
}

class JsonReader {
 public:
  static Json read(kj::StringPtr document) {
    JsonReader reader(document);
    auto value = reader.readValue();
    reader.skipSpace();
    KJ_REQUIRE(reader.rest.size() == 0, "something follows the document", reader.rest);
    return value;
  }

 private:
  static constexpr char ESCAPES[] = "\"\\/bfnrt";
  static constexpr char MEANINGS[] = "\"\\/\b\f\n\r\t";

  kj::StringPtr rest;
  explicit JsonReader(kj::StringPtr document) : rest(document) {}

  void skipSpace() {
    while (rest.size() > 0 && strchr(" \t\r\n", rest[0]) != nullptr) rest = rest.slice(1);
  }
  bool take(kj::StringPtr token) {
    if (!rest.startsWith(token)) return false;
    rest = rest.slice(token.size());
    return true;
  }
  Json readValue() {
    skipSpace();
    if (take("null")) return {Json::Null()};
    if (take("true")) return {true};
    if (take("false")) return {false};
    if (rest.startsWith("\"")) return {readText()};
    if (take("[")) return {readList()};
    if (take("{")) return {readObject()};
    return {readNumber()};
  }
  kj::Vector<Json> readList() {
    kj::Vector<Json> list;
    skipSpace();
    if (take("]")) return list;
    for (;;) {
      list.add(readValue());
      skipSpace();
      if (take("]")) return list;
      KJ_REQUIRE(take(","), "a list without a comma", rest);
    }
  }
  kj::Vector<kj::Own<Json::Member>> readObject() {
    kj::Vector<kj::Own<Json::Member>> members;
    skipSpace();
    if (take("}")) return members;
    for (;;) {
      skipSpace();
      auto name = readText();
      for (auto& member : members) KJ_REQUIRE(member->name != name, "a name twice", name);
      skipSpace();
      KJ_REQUIRE(take(":"), "a name without a value", rest);
      auto value = readValue();
      members.add(kj::heap<Json::Member>(Json::Member{kj::mv(name), kj::mv(value)}));
      skipSpace();
      if (take("}")) return members;
      KJ_REQUIRE(take(","), "an object without a comma", rest);
    }
  }
  double readNumber() {
    auto digits = [&](size_t from) {
      size_t end = from;
      while (end < rest.size() && rest[end] >= '0' && rest[end] <= '9') ++end;
      KJ_REQUIRE(end > from, "no number", rest);
      return end;
    };
    size_t start = rest.startsWith("-") ? 1 : 0;
    size_t end = digits(start);
    KJ_REQUIRE(rest[start] != '0' || end == start + 1, "a number with a leading zero", rest);
    if (end < rest.size() && rest[end] == '.') end = digits(end + 1);
    if (end < rest.size() && (rest[end] == 'e' || rest[end] == 'E')) {
      bool sign = end + 1 < rest.size() && (rest[end + 1] == '+' || rest[end + 1] == '-');
      end = digits(end + (sign ? 2 : 1));
    }
    double number = strtod(kj::heapString(rest.slice(0, end)).cStr(), nullptr);
    rest = rest.slice(end);
    return number;
  }
  uint32_t readHex() {
    KJ_REQUIRE(rest.size() >= 4);
    uint32_t unit = 0;
    for (size_t i = 0; i < 4; ++i) {
      KJ_REQUIRE(isxdigit(static_cast<unsigned char>(rest[i])), "no \\uXXXX", rest);
      unit = unit * 16 + static_cast<uint32_t>(strtoul(kj::str(rest[i]).cStr(), nullptr, 16));
    }
    rest = rest.slice(4);
    return unit;
  }
  static void append(kj::Vector<char>& out, uint32_t character) {
    auto tail = [&](int shift) { out.add(static_cast<char>(0x80 | ((character >> shift) & 0x3f))); };
    if (character < 0x80) {
      out.add(static_cast<char>(character));
    } else if (character < 0x800) {
      out.add(static_cast<char>(0xc0 | (character >> 6)));
      tail(0);
    } else if (character < 0x10000) {
      out.add(static_cast<char>(0xe0 | (character >> 12)));
      tail(6);
      tail(0);
    } else {
      out.add(static_cast<char>(0xf0 | (character >> 18)));
      tail(12);
      tail(6);
      tail(0);
    }
  }
  kj::String readText() {
    KJ_REQUIRE(take("\""), "no text", rest);
    kj::Vector<char> out;
    while (!take("\"")) {
      KJ_REQUIRE(rest.size() > 0, "a text without end");
      if (!take("\\")) {
        KJ_REQUIRE(rest[0] >= ' ' && rest[0] <= '~', "our documents are printable ASCII");
        out.add(rest[0]);
        rest = rest.slice(1);
        continue;
      }
      if (take("u")) {
        auto unit = readHex();
        KJ_REQUIRE(unit < 0xdc00 || unit > 0xdfff, "a second surrogate alone");
        if (unit >= 0xd800 && unit <= 0xdbff) {
          KJ_REQUIRE(take("\\u"), "a first surrogate alone");
          auto second = readHex();
          KJ_REQUIRE(second >= 0xdc00 && second <= 0xdfff, "a first surrogate alone");
          unit = 0x10000 + ((unit - 0xd800) << 10) + (second - 0xdc00);
        }
        append(out, unit);
        continue;
      }
      auto* found = rest.size() == 0 ? nullptr : strchr(ESCAPES, rest[0]);
      KJ_REQUIRE(found != nullptr, "no such escape", rest);
      out.add(MEANINGS[found - ESCAPES]);
      rest = rest.slice(1);
    }
    return kj::heapString(out);
  }
};

}  // namespace postern::test
