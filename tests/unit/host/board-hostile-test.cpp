// What a reader makes of files that no writer of ours has written.

#include <doctest/doctest.h>

#include <random>

#include "tests/support/sanitized.h"
#include "tests/unit/host/board-fixture.h"

namespace postern::host::test {
namespace {

kj::Array<kj::byte> soundBoard() {
  BoardFixture f;
  BoardWriter writer(f.path, monotonicNow(), 4);
  REQUIRE(writer.add(f.vm("web1")) != nullptr);
  REQUIRE(writer.add(f.vm("web2")) != nullptr);
  ScribbledBoard raw(f.path);
  return kj::heapArray<kj::byte>(raw.bytes());
}

void checkSafe(const BoardSnapshot& snapshot) {
  for (auto& vm : snapshot.vms) {
    CHECK(vm.name.size() <= MAX_BOARD_NAME_BYTES);
    CHECK(vm.name.size() > 0);
    for (char c : vm.name) CHECK((c >= ' ' && c <= '~'));
    CHECK((uint8_t(vm.verdict.colour) <= 3));
    KJ_IF_MAYBE (report, vm.report) {
      CHECK(report->agentVersion.size() <= MAX_AGENT_VERSION_BYTES);
      for (char c : report->agentVersion) CHECK((c >= ' ' && c <= '~'));
      CHECK((guestStateName(report->state) != "unknown"));
    }
  }
}

TEST_CASE("what is no board is refused in a line that says what it is") {
  BoardFixture f;
  CHECK(contains(f.refusal(), "is posternd running?"));
  KJ_SYSCALL(mkdir(f.path.cStr(), 0700));
  CHECK(contains(f.refusal(), "is not a file"));
  KJ_SYSCALL(rmdir(f.path.cStr()));
  KJ_SYSCALL(mkfifo(f.path.cStr(), 0600));
  CHECK(contains(f.refusal(), "is not a file"));
  KJ_SYSCALL(unlink(f.path.cStr()));
  KJ_SYSCALL(symlink("/etc/passwd", f.path.cStr()));
  CHECK(contains(f.refusal(), "symbolic link"));
  f.putFile(nullptr);
  CHECK(contains(f.refusal(), "0 bytes"));
  auto zeros = kj::heapArray<kj::byte>(1 << 16);
  memset(zeros.begin(), 0, zeros.size());
  f.putFile(zeros);
  CHECK(contains(f.refusal(), "is not a status board"));
}

TEST_CASE("a board that is cut short is refused at every length, and a whole one is not") {
  auto sound = soundBoard();
  BoardFixture f;
  size_t step = postern::test::SANITIZED ? 97 : 13;
  for (size_t length = 0; length < sound.size(); length += step) {
    f.putFile(sound.slice(0, length));
    CHECK(BoardReader::open(f.path).is<kj::String>());
  }
  f.putFile(sound.slice(0, sound.size() - 1));
  CHECK(contains(f.refusal(), "cut short"));
  f.putFile(sound);
  CHECK(f.reader()->snapshot(monotonicNow()).vms.size() == 2);
}

TEST_CASE("another layout version is refused in words that say which, and what to do") {
  auto board = soundBoard();
  BoardFixture f;
  for (kj::byte version : {kj::byte(0), kj::byte(2), kj::byte(255)}) {
    board[8] = version;
    f.putFile(board);
    auto text = f.refusal();
    CHECK(contains(text, kj::str("layout version ", version)));
    CHECK(contains(text, "this program reads 1"));
    CHECK(contains(text, "restart posternd"));
  }
}

TEST_CASE("every bit of the header flipped: refused, or what it says of the writer is all that differs") {
  auto sound = soundBoard();
  BoardFixture f;
  size_t refused = 0;
  for (size_t at = 0; at < 112; ++at) {
    for (int bit = 0; bit < 8; ++bit) {
      auto board = kj::heapArray<kj::byte>(sound);
      board[at] = kj::byte(board[at] ^ (1 << bit));
      f.putFile(board);
      auto opened = BoardReader::open(f.path);
      if (opened.is<kj::String>()) {
        ++refused;
        CHECK(at < 32);
      } else {
        checkSafe(opened.get<kj::Own<BoardReader>>()->snapshot(monotonicNow()));
        CHECK((at >= 32 || (at >= 20 && at < 24)));  // a smaller capacity
      }
    }
  }
  CHECK(refused >= (8 + 4 + 4 + 4 + 8) * 8);
}

TEST_CASE("a board of an earlier boot says so, although its stamp may look young") {
  auto board = soundBoard();
  BoardFixture f;
  board[48] = kj::byte(board[48] ^ 1);
  f.putFile(board);
  CHECK(f.reader()->snapshot(monotonicNow()).writer == BoardWriterState::EARLIER_BOOT);
}

TEST_CASE(
    "an extent beyond the file is not believed, and reasons and colours that are unknown are told apart from known "
    "ones") {
  BoardFixture f;
  BoardWriter writer(f.path, monotonicNow(), 4);
  REQUIRE(writer.add(f.vm("newer")) != nullptr);
  REQUIRE(writer.add(f.vm("broken")) != nullptr);
  ScribbledBoard raw(f.path);
  raw.header().extent.store(0xffffffff);
  auto fields = [&](size_t index) { return reinterpret_cast<board::Slot*>(&raw.slot(index).words); };
  fields(0)->reason = 0x7777;
  fields(1)->colour = 4;
  auto snapshot = f.reader()->snapshot(monotonicNow());
  REQUIRE(snapshot.vms.size() == 1);
  CHECK(snapshot.vms[0].verdict.reason == Reason::UNKNOWN);
  CHECK(snapshot.vms[0].verdict.colour == Colour::GREEN);
  CHECK(snapshot.unreadable == 1);
}

// T54
TEST_CASE("random bytes in all slots: whatever is read is bounded and printable, and it does not take long") {
  auto sound = soundBoard();
  BoardFixture f;
  std::mt19937_64 random(1);
  size_t read = 0;
  for (int round = 0; round < (postern::test::SANITIZED ? 20 : 200); ++round) {
    auto board = kj::heapArray<kj::byte>(sound);
    for (auto& byte : board.slice(board::HEADER_BYTES, board.size())) byte = kj::byte(random());
    auto u32 = uint32_t(random() % 8);
    memcpy(board.begin() + 96, &u32, 4);
    for (size_t slot = board::HEADER_BYTES; slot < board.size(); slot += board::SLOT_BYTES) {
      if (random() % 64 != 0) board[slot] = kj::byte(board[slot] & 0xfe);  // not being written
      if (random() % 4 == 0) continue;
      const kj::byte plausible[] = {
          1, 0, 0, 0, kj::byte(random() % 4), kj::byte(random() % 5), 1, kj::byte(random() % 4)};
      memcpy(board.begin() + slot + 8, plausible, sizeof(plausible));
    }
    f.putFile(board);
    auto snapshot = f.reader()->snapshot(monotonicNow());
    checkSafe(snapshot);
    read += snapshot.vms.size();
  }
  CHECK(read > 5);
}

TEST_CASE("a board whose every slot is half-written costs a bounded time") {
  BoardFixture f;
  BoardWriter writer(f.path, monotonicNow(), board::MAX_CAPACITY);
  {
    ScribbledBoard raw(f.path);
    raw.header().extent.store(board::MAX_CAPACITY);
    for (size_t i = 0; i < board::MAX_CAPACITY; ++i) raw.slot(i).lock.store(1);
  }
  auto start = monotonicNow();
  auto snapshot = f.reader()->snapshot(start);
  CHECK(monotonicNow() - start < 2 * kj::SECONDS);
  CHECK(snapshot.unreadable == board::MAX_CAPACITY);
}

}  // namespace
}  // namespace postern::host::test
