#include "transport/sync-scanner.h"

#include <doctest/doctest.h>
#include <string.h>

#include "tests/support/serial-probe.h"

using namespace postern;
using namespace postern::test;

namespace {

// Where words end, by the plainest search.
kj::Vector<size_t> endsOf(kj::ArrayPtr<const kj::byte> bytes) {
  kj::Vector<size_t> ends;
  for (size_t at = 0; at + SYNC_WORD_BYTES <= bytes.size(); ++at) {
    if (memcmp(bytes.begin() + at, SYNC_WORD.data(), SYNC_WORD_BYTES) == 0) ends.add(at + SYNC_WORD_BYTES);
  }
  return ends;
}

// Where the scanner finds them when the bytes come in chunks of these sizes, over and over.
kj::Vector<size_t> found(kj::ArrayPtr<const kj::byte> bytes, std::initializer_list<size_t> chunks) {
  kj::Vector<size_t> ends;
  SyncScanner scanner;
  size_t at = 0;
  while (at < bytes.size()) {
    for (size_t size : chunks) {
      size_t end = kj::min(at + size, bytes.size());
      while (at < end) {
        KJ_IF_MAYBE (e, scanner.find(bytes.slice(at, end))) {
          at += *e;
          ends.add(at);
        } else {
          at = end;
        }
      }
    }
  }
  return ends;
}

}  // namespace

TEST_CASE("no part of the sync word is both its beginning and its end, so that words cannot overlap") {
  for (size_t n = 1; n < SYNC_WORD_BYTES; ++n) {
    CHECK(memcmp(SYNC_WORD.data(), SYNC_WORD.data() + SYNC_WORD_BYTES - n, n) != 0);
  }
}

TEST_CASE("the sync word's first bytes are no frame header") {
  CHECK(parseFrameHeader(kj::arrayPtr(SYNC_WORD.data(), FRAME_HEADER_BYTES)) == nullptr);
}

TEST_CASE("words are found wherever chunks begin and end, among parts of words") {
  kj::Vector<kj::byte> bytes;
  TestRandom random(3);
  for (unsigned i = 0; i < 300; ++i) {
    // A word or the beginning or end of one, and sometimes other bytes.
    size_t from = random.next() % 3 == 0 ? random.next() % SYNC_WORD_BYTES : 0;
    size_t to = random.next() % 3 == 0 ? random.next() % SYNC_WORD_BYTES : SYNC_WORD_BYTES;
    if (from < to) bytes.addAll(kj::arrayPtr(SYNC_WORD.data(), SYNC_WORD_BYTES).slice(from, to));
    if (random.next() % 2 == 0) bytes.addAll(randomBytes(random.next() % 40, i));
  }
  auto ends = endsOf(bytes);
  CHECK(ends.size() > 50);
  for (size_t chunk = 1; chunk < 60; ++chunk) CHECK(found(bytes, {chunk}) == ends);
  CHECK(found(bytes, {1, 14, 2, 15, 16, 17, 3}) == ends);
  CHECK(found(bytes, {bytes.size()}) == ends);
}

TEST_CASE("begun() counts the bytes of a word that may be arriving, and nothing else") {
  auto word = kj::arrayPtr(SYNC_WORD.data(), SYNC_WORD_BYTES);
  SyncScanner scanner;
  CHECK(scanner.begun() == 0);
  CHECK(scanner.find(filled(40, 0x14)) == nullptr);
  CHECK(scanner.begun() == 0);
  for (size_t n = 1; n < SYNC_WORD_BYTES; ++n) {
    CHECK(scanner.find(word.slice(n - 1, n)) == nullptr);
    CHECK(scanner.begun() == n);
  }
  CHECK(scanner.find(word.slice(15, 16)) != nullptr);
  CHECK(scanner.begun() == 0);
  CHECK(scanner.find(word.slice(0, 9)) == nullptr);
  CHECK(scanner.find(word.slice(0, 3)) == nullptr);
  CHECK(scanner.begun() == 3);
}
