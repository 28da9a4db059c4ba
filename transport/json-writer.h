#pragma once
// JsonWriter: one JSON document on one line, in pure ASCII. Whatever bytes a text has, the document is valid: what is
// not printable ASCII is escaped, bytes that are not UTF-8 become U+FFFD. So it is also safe on a terminal.
//
//   JsonWriter json;
//   json.beginObject().field("vm", name).key("steps").beginArray() ... .endArray().endObject();
//
// Keys and values where none may stand are our bug.

#include <kj/string.h>
#include <kj/vector.h>
#include <stdint.h>

#include <concepts>

namespace postern {

class JsonWriter {
 public:
  JsonWriter() = default;
  KJ_DISALLOW_COPY(JsonWriter);

  JsonWriter& beginObject() { return open('{'); }
  JsonWriter& endObject() { return close('{', '}'); }
  JsonWriter& beginArray() { return open('['); }
  JsonWriter& endArray() { return close('[', ']'); }
  JsonWriter& key(kj::StringPtr name);

  JsonWriter& value(kj::StringPtr text);
  JsonWriter& value(const kj::String& text) { return value(kj::StringPtr(text)); }
  JsonWriter& value(const char* text) { return value(kj::StringPtr(text)); }
  JsonWriter& value(double number);  // null if it is no number
  JsonWriter& value(std::same_as<bool> auto flag) { return raw(flag ? "true"_kj : "false"_kj); }
  JsonWriter& value(std::integral auto number) requires(!std::same_as<decltype(number), bool>) {
    return raw(kj::str(number));
  }
  JsonWriter& null() { return raw("null"_kj); }

  template <typename T>
  JsonWriter& field(kj::StringPtr name, T&& content) {
    key(name);
    return value(kj::fwd<T>(content));
  }

  // What there is of the document, which goes on: for one that is too long to be kept whole.
  kj::String take();
  // The document, or what take() has left of it, without a newline.
  kj::String finish();

 private:
  kj::Vector<char> text;
  kj::Vector<char> nesting;  // of '{' and '['
  bool needsComma = false;
  bool afterKey = false;

  JsonWriter& open(char bracket);
  JsonWriter& close(char opened, char bracket);
  JsonWriter& raw(kj::StringPtr token);
  void beforeValue();
  void quoted(kj::StringPtr untrusted);
};

}  // namespace postern
