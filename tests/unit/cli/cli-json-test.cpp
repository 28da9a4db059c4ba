#include <doctest/doctest.h>
#include <kj/debug.h>
#include <string.h>

#include <limits>
#include <string>

#include "tests/unit/cli/cli-json-reader.h"
#include "transport/json-writer.h"

using namespace postern;

namespace {

// The text that an independent reader finds in a document of one text.
kj::String readBack(kj::StringPtr document) {
  return kj::str(postern::test::JsonReader::read(document).text());
}

kj::String documentOf(kj::StringPtr text) {
  JsonWriter json;
  json.value(text);
  auto document = json.finish();
  for (char c : document) CHECK((c >= ' ' && c <= '~'));
  return document;
}

}  // namespace

TEST_CASE("any text that is UTF-8 comes back as it was") {
  for (kj::StringPtr text :
       {"", "plain", "quote\" backslash\\ slash/", "\t\r\n\b\f\033[31m\177", "J\303\274rgen", "\342\202\254",
        "\360\237\220\261 \364\217\277\277", "\357\277\275 \357\277\277", "\302\205 C1", "\342\200\256 bidi"}) {
    CAPTURE(std::string(text.cStr()));
    CHECK((readBack(documentOf(text)) == text));
  }
}

TEST_CASE("what is not UTF-8 becomes U+FFFD, byte by byte, and what follows stays") {
  const kj::StringPtr replacement = "\357\277\275";
  struct Case {
    kj::StringPtr text;
    unsigned replaced;
  };
  for (auto& one : {Case{"\200", 1}, Case{"\377\376", 2}, Case{"\303", 1}, Case{"\342\202", 2}, Case{"\360\237\220", 3},
                    Case{"\300\200", 2}, Case{"\340\200\200", 3}, Case{"\355\240\200", 3}, Case{"\364\220\200\200", 4},
                    Case{"\365\200\200\200", 4}, Case{"\303(", 1}}) {
    auto text = kj::str("a", one.text, "z");
    kj::Vector<char> wanted;
    wanted.add('a');
    for (unsigned i = 0; i < one.replaced; ++i) wanted.addAll(replacement);
    if (one.text.endsWith("(")) wanted.add('(');
    wanted.add('z');
    CHECK((readBack(documentOf(text)) == kj::heapString(wanted)));
  }
}

TEST_CASE("every pair of bytes gives a document that a reader takes") {
  for (unsigned first = 1; first < 256; ++first) {
    for (unsigned second = 1; second < 256; second += first < 128 ? 31 : 1) {
      char bytes[] = {static_cast<char>(first), static_cast<char>(second), 0};
      auto back = readBack(documentOf(kj::StringPtr(bytes, 2)));
      REQUIRE(back.size() > 0);
    }
  }
}

TEST_CASE("objects, lists, numbers and null nest") {
  JsonWriter json;
  json.beginObject().field("a", 1).field("b", true).key("c").beginArray();
  json.value(-5).value(uint64_t(18446744073709551615u)).value(0.5).null().beginObject().endObject().endArray();
  json.key("d").beginArray().endArray().field("\"", "x").endObject();
  CHECK((json.finish() == R"({"a":1,"b":true,"c":[-5,18446744073709551615,0.5,null,{}],"d":[],"\"":"x"})"));
}

TEST_CASE("a number that is none is null, for JSON has no word for it") {
  JsonWriter json;
  json.beginArray().value(std::numeric_limits<double>::quiet_NaN()).value(std::numeric_limits<double>::infinity());
  json.endArray();
  CHECK((json.finish() == "[null,null]"));
}

TEST_CASE("a document that would not be JSON is our bug") {
  CHECK_THROWS((JsonWriter().finish()));
  CHECK_THROWS((JsonWriter().beginObject().finish()));
  CHECK_THROWS((JsonWriter().beginObject().value(1)));
  CHECK_THROWS((JsonWriter().beginArray().key("a")));
  CHECK_THROWS((JsonWriter().beginObject().key("a").endObject()));
  CHECK_THROWS((JsonWriter().beginObject().key("a").key("b")));
  CHECK_THROWS((JsonWriter().beginArray().endObject()));
  CHECK_THROWS((JsonWriter().value(1).value(2)));
}
