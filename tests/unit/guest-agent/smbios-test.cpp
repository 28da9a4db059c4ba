#include "guest-agent/identity/smbios.h"

#include <doctest/doctest.h>
#include <string.h>

#include <string>
#include <vector>

#include "tests/support/test-random.h"

using namespace postern;
using namespace postern::guest;

namespace {

// A structure of type 11 as firmware writes it.
std::string structure(const std::vector<std::string>& strings, unsigned char count, char type = 11, char length = 5) {
  std::string raw{type, length, 0, 1, static_cast<char>(count)};
  for (auto& string : strings) raw += string + '\0';
  return raw + '\0';
}

std::vector<std::string> read(const std::string& raw) {
  // At the end of an allocation of exactly this size, so that a sanitizer sees a byte too many.
  auto exact = kj::heapArray<char>(raw.data(), raw.size());
  std::vector<std::string> result;
  for (auto string : oemStrings(exact)) result.emplace_back(string.begin(), string.size());
  return result;
}

}  // namespace

TEST_CASE("OEM strings come in their order") {
  CHECK(read(structure({"one", "postern-bundle-1:abc", "three"}, 3)) ==
        std::vector<std::string>{"one", "postern-bundle-1:abc", "three"});
}

TEST_CASE("a structure that is longer than the first version of its kind is skipped to its strings") {
  std::string raw = structure({}, 1, 11, 8);
  raw.pop_back();
  CHECK(read(raw + std::string("xyz") + std::string("text\0\0", 6)) == std::vector<std::string>{"text"});
}

TEST_CASE("no more strings are taken than are counted, and none that are not there") {
  CHECK(read(structure({"one", "two", "three"}, 2)).size() == 2);
  CHECK(read(structure({"one"}, 255)) == std::vector<std::string>{"one"});
  CHECK(read(structure({"one"}, 0)).empty());
  CHECK(read(structure({}, 1)).empty());
}

TEST_CASE("another type, a length that is too short, and a structure that is too long have none") {
  CHECK(read(structure({"one"}, 1, 1)).empty());
  for (char length : {char(0), char(1), char(4)}) CHECK(read(structure({"one"}, 1, 11, length)).empty());
  CHECK(read(structure({"one"}, 1, 11, char(0xff))).empty());
  CHECK(read(structure({std::string(MAX_SMBIOS_BYTES, 'x')}, 1)).empty());
}

// T65
TEST_CASE("every truncation gives the strings that are whole and nothing else") {
  auto whole = structure({"first", "second"}, 2);
  for (size_t size = 0; size < whole.size(); ++size) {
    auto strings = read(whole.substr(0, size));
    size_t expected = (size >= 11 ? 1u : 0u) + (size >= 18 ? 1u : 0u);
    CHECK(strings.size() == expected);
    if (expected > 0) CHECK(strings[0] == "first");
  }
}

// T65
TEST_CASE("any bytes at all are survived") {
  test::TestRandom random(7);
  for (unsigned round = 0; round < 20000; ++round) {
    auto size = random.next() % 64;
    std::string raw(size, '\0');
    random.fill(kj::arrayPtr(raw.data(), raw.size()).asBytes());
    if (size > 0 && round % 2 == 0) raw[0] = 11;
    size_t total = 0;
    for (auto& string : read(raw)) total += string.size() + 1;
    CHECK(total <= size);
  }
}
