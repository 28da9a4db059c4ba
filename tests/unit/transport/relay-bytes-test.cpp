#include <doctest/doctest.h>

#include "tests/support/sanitized.h"
#include "tests/unit/transport/relay-lab.h"

namespace postern::test {
namespace {

constexpr size_t MIB = size_t(1) << 20;

// T94
TEST_CASE("bytes of both ways arrive exact, and each way ends behind its last byte") {
  RelayLab lab;
  for (auto kind : SOCKET_KINDS) {
    for (size_t size : {size_t(0), size_t(1), MAX_BULK_DATA_BYTES, MAX_BULK_DATA_BYTES + 1, 3 * MIB + 7}) {
      auto line = lab.connect(kind);
      lab.exchange(line, lab.bytes(size), lab.bytes(size / 3));
      lab.expect(line, RelayOutcome::FINISHED, RelayOutcome::FINISHED);
    }
  }
}

TEST_CASE("a way that has ended leaves the other one open for as long as it wants") {
  RelayLab lab;
  for (auto kind : SOCKET_KINDS) {
    auto line = lab.connect(kind);
    auto question = lab.bytes(100000), answer = lab.bytes(2 * MIB);
    line.hostProgram->finish();
    CHECK(KJ_REQUIRE_NONNULL(lab.await(line.guestProgram->readAll())).size() == 0);
    lab.pass(100 * kj::MILLISECONDS);
    CHECK_FALSE(line.hostOutcome.poll(lab.waitScope));
    CHECK_FALSE(line.guestOutcome.poll(lab.waitScope));
    auto answering =
        line.guestProgram->write(answer).then([&line] { line.guestProgram->finish(); }).eagerlyEvaluate(nullptr);
    CHECK((KJ_REQUIRE_NONNULL(lab.await(line.hostProgram->readAll())) == answer));
    lab.expect(line, RelayOutcome::FINISHED, RelayOutcome::FINISHED);
  }
}

TEST_CASE("a program that writes and closes at once has all of it delivered") {
  RelayLab lab;
  for (auto kind : SOCKET_KINDS) {
    auto line = lab.connect(kind);
    auto content = lab.bytes(MIB);
    auto writing =
        line.hostProgram->write(content).then([&line] { line.hostProgram = nullptr; }).eagerlyEvaluate(nullptr);
    lab.pass(50 * kj::MILLISECONDS);
    CHECK((KJ_REQUIRE_NONNULL(lab.await(line.guestProgram->readAll())) == content));
    line.guestProgram->finish();
    lab.expect(line, RelayOutcome::FINISHED, RelayOutcome::FINISHED);
  }
}

TEST_CASE("a hundred thousand writes of one byte arrive as they were written") {
  RelayLab lab;
  constexpr size_t COUNT = SANITIZED ? 10000 : 100000;
  for (auto kind : SOCKET_KINDS) {
    auto line = lab.connect(kind);
    auto content = lab.bytes(COUNT);
    size_t written = 0;
    kj::Function<kj::Promise<void>()> writeOn = [&]() -> kj::Promise<void> {
      if (written == COUNT) {
        line.hostProgram->finish();
        return kj::READY_NOW;
      }
      size_t at = written++;
      return line.hostProgram->write(content.slice(at, at + 1)).then([&] {
        return kj::evalLater([&] { return writeOn(); });
      });
    };
    auto writing = writeOn().eagerlyEvaluate(nullptr);
    CHECK((KJ_REQUIRE_NONNULL(lab.await(line.guestProgram->readAll())) == content));
    line.guestProgram->finish();
    lab.expect(line, RelayOutcome::FINISHED, RelayOutcome::FINISHED);
  }
}

TEST_CASE("bursts of 64 MiB both ways at once") {
  RelayLab lab;
  auto there = lab.bytes((SANITIZED ? 8 : 64) * MIB), back = lab.bytes((SANITIZED ? 8 : 64) * MIB);
  for (auto kind : SOCKET_KINDS) {
    auto line = lab.connect(kind);
    lab.exchange(line, there, back);
    lab.expect(line, RelayOutcome::FINISHED, RelayOutcome::FINISHED);
  }
}

TEST_CASE("a slow reader gets everything") {
  RelayLab lab;
  auto line = lab.connect(SocketKind::UNIX);
  auto content = lab.bytes(3 * MIB);
  auto writing =
      line.hostProgram->write(content).then([&line] { line.hostProgram->finish(); }).eagerlyEvaluate(nullptr);
  kj::byte buffer[20000];
  size_t got = 0;
  for (;;) {
    size_t size = lab.await(line.guestProgram->readSome(kj::arrayPtr(buffer, sizeof(buffer))));
    if (size == 0) break;
    REQUIRE(got + size <= content.size());
    REQUIRE(memcmp(buffer, content.begin() + got, size) == 0);
    got += size;
    lab.pass(1 * kj::MILLISECONDS);
  }
  CHECK(got == content.size());
}

}  // namespace
}  // namespace postern::test
