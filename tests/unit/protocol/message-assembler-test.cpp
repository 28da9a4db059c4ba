#include "protocol/message-assembler.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <doctest/doctest.h>

#include <vector>

#include "protocol/limits.h"
#include "protocol/wire-int.h"
#include "tests/support/test-random.h"

namespace postern {
namespace {

using Words = std::vector<uint64_t>;

// A message with segments of these sizes, filled with `fill`.
Words message(const std::vector<uint32_t>& segments, uint64_t fill) {
  Words words((4 + 4 * segments.size() + 7) / 8);
  auto* table = reinterpret_cast<kj::byte*>(words.data());
  putLittleEndian<uint32_t>(uint32_t(segments.size() - 1), table);
  size_t total = 0;
  for (size_t i = 0; i < segments.size(); ++i) {
    putLittleEndian<uint32_t>(segments[i], table + 4 + 4 * i);
    total += segments[i];
  }
  words.resize(words.size() + total, fill);
  return words;
}

Words operator+(const Words& a, const Words& b) {
  Words sum = a;
  sum.insert(sum.end(), b.begin(), b.end());
  return sum;
}

// Feeds words `from` to `to` as one record.
kj::Maybe<MessageError> feed(MessageAssembler& assembler, const Words& words, size_t from, size_t to,
                             std::deque<IncomingMessage>& out) {
  auto bytes = kj::arrayPtr(words.data() + from, to - from).asBytes();
  auto storage = kj::heapArray<kj::byte>(bytes);
  auto data = storage.asPtr();
  return assembler.add(kj::mv(storage), data, out);
}

bool equals(const IncomingMessage& message, const Words& words) {
  return message.words.asBytes() == kj::arrayPtr(words.data(), words.size()).asBytes();
}

const std::vector<Words>& samples() {
  static const std::vector<Words> all = {message({0}, 1),    message({1}, 2),       message({5}, 3),
                                         message({0, 0}, 4), message({1, 2, 3}, 5), message({2, 0, 0, 1}, 6)};
  return all;
}

TEST_CASE("messages come out whole, wherever records cut their stream") {
  Words stream;
  for (auto& sample : samples()) stream = stream + sample;
  for (size_t first = 0; first <= stream.size(); ++first) {
    for (size_t second = first; second <= stream.size(); ++second) {
      MessageAssembler assembler;
      std::deque<IncomingMessage> out;
      size_t cuts[] = {0, first, second, stream.size()};
      for (size_t i = 0; i < 3; ++i) {
        if (cuts[i] == cuts[i + 1]) continue;
        REQUIRE((feed(assembler, stream, cuts[i], cuts[i + 1], out) == nullptr));
      }
      REQUIRE(out.size() == samples().size());
      bool same = true;
      for (size_t i = 0; i < out.size(); ++i) same = same && equals(out[i], samples()[i]);
      CHECK(same);
      CHECK(!assembler.midMessage());
    }
  }
}

TEST_CASE("messages come out whole when each record is a word") {
  Words stream;
  for (auto& sample : samples()) stream = stream + sample;
  MessageAssembler assembler;
  std::deque<IncomingMessage> out;
  for (size_t i = 0; i < stream.size(); ++i) REQUIRE((feed(assembler, stream, i, i + 1, out) == nullptr));
  REQUIRE(out.size() == samples().size());
  for (size_t i = 0; i < out.size(); ++i) CHECK(equals(out[i], samples()[i]));
}

TEST_CASE("a record that is one message is not copied") {
  auto words = message({10}, 7);
  auto storage = kj::heapArray<kj::byte>(kj::arrayPtr(words.data(), words.size()).asBytes());
  auto data = storage.asPtr();
  MessageAssembler assembler;
  std::deque<IncomingMessage> out;
  CHECK((assembler.add(kj::mv(storage), data, out) == nullptr));
  REQUIRE(out.size() == 1);
  CHECK((const void*)out[0].words.begin() == (const void*)data.begin());
}

// T25
TEST_CASE("too many segments are refused from the first word") {
  for (uint32_t less1 : {uint32_t(limits::MAX_RPC_SEGMENTS), uint32_t(999999), uint32_t(0x7fffffff), 0xffffffffu}) {
    MessageAssembler assembler;
    std::deque<IncomingMessage> out;
    auto error = feed(assembler, {uint64_t(less1)}, 0, 1, out);
    CHECK((error == MessageError::TOO_MANY_SEGMENTS));
    CHECK(out.empty());
  }
}

TEST_CASE("as many segments as are allowed are accepted, in one record and word by word") {
  auto words = message(std::vector<uint32_t>(limits::MAX_RPC_SEGMENTS, 1), 8);
  for (size_t step : {words.size(), size_t(1)}) {
    MessageAssembler assembler;
    std::deque<IncomingMessage> out;
    for (size_t at = 0; at < words.size(); at += step) CHECK((feed(assembler, words, at, at + step, out) == nullptr));
    REQUIRE(out.size() == 1);
    CHECK(equals(out[0], words));
  }
}

// T25
TEST_CASE("sizes that would overflow 32 or 64 bits are refused, however the table is cut") {
  const std::vector<std::vector<uint32_t>> tables = {
      std::vector<uint32_t>(512, 0xffffffffu),
      {0xffffffffu},
      {0x20000000u},
      {0x80000000u, 0x80000000u},
      {0xffffffffu, 1},
      {0xffffffffu, 0xffffffffu, 2},
      {uint32_t(limits::MAX_RPC_MESSAGE_BYTES / 8)},  // with its table one word over
      {uint32_t(limits::MAX_RPC_MESSAGE_BYTES / 8) - 1, 0, 1},
  };
  for (auto& sizes : tables) {
    // The table alone: what is too large is refused before anything else has come.
    Words table((4 + 4 * sizes.size() + 7) / 8);
    auto* bytes = reinterpret_cast<kj::byte*>(table.data());
    putLittleEndian<uint32_t>(uint32_t(sizes.size() - 1), bytes);
    for (size_t i = 0; i < sizes.size(); ++i) putLittleEndian<uint32_t>(sizes[i], bytes + 4 + 4 * i);
    for (size_t step : {table.size(), size_t(1)}) {
      MessageAssembler assembler;
      std::deque<IncomingMessage> out;
      kj::Maybe<MessageError> error;
      for (size_t at = 0; at < table.size() && error == nullptr; at += step) {
        error = feed(assembler, table, at, at + step, out);
      }
      CHECK((error == MessageError::TOO_LARGE));
    }
  }
}

TEST_CASE("a message of exactly the limit is accepted") {
  auto words = message({uint32_t(limits::MAX_RPC_MESSAGE_BYTES / 8) - 1}, 9);
  REQUIRE(words.size() * 8 == limits::MAX_RPC_MESSAGE_BYTES);
  MessageAssembler assembler;
  std::deque<IncomingMessage> out;
  for (size_t at = 0; at < words.size(); at += 8000) {
    REQUIRE((feed(assembler, words, at, std::min(at + 8000, words.size()), out) == nullptr));
  }
  REQUIRE(out.size() == 1);
  CHECK(equals(out[0], words));
}

TEST_CASE("random bytes end in an error or wait for more") {
  test::TestRandom random(3);
  for (int round = 0; round < 20000; ++round) {
    MessageAssembler assembler;
    std::deque<IncomingMessage> out;
    for (int record = 0; record < 4; ++record) {
      Words words(1 + random.next() % 8);
      // Small numbers now and then, so that some tables pass.
      for (auto& word : words) word = random.next() >> (random.next() % 64);
      if (feed(assembler, words, 0, words.size(), out) != nullptr) break;
    }
    for (auto& one : out) CHECK(one.words.asBytes().size() <= limits::MAX_RPC_MESSAGE_BYTES);
  }
}

}  // namespace
}  // namespace postern
