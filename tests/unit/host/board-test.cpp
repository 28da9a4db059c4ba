#include <doctest/doctest.h>
#include <sys/resource.h>

#include <chrono>
#include <cstdio>

#include "tests/unit/host/board-fixture.h"

namespace postern::host::test {
namespace {

TEST_CASE("what the writer puts on the board is what a reader gets, field by field") {
  BoardFixture f;
  BoardWriter writer(f.path, monotonicNow(), 16);
  auto vm = f.vm("web1", Colour::YELLOW, Reason::STARVED);
  for (size_t i = 0; i < 16; ++i) vm.vm.bytes[i] = kj::byte(i + 1);
  vm.transport = board::TRANSPORT_SERIAL;
  vm.linkUp = true;
  vm.sessionPid = 4711;
  vm.sessionCount = 3;
  GuestReport report;
  report.at = monotonicNow();
  report.sequence = 99;
  report.interval = 1500 * kj::MILLISECONDS;
  report.loopLag = 42 * kj::MICROSECONDS;
  report.state = GuestState::FROZEN;
  report.bootId.fill(7);
  report.agentVersion = kj::str("0.1.0");
  report.uptime = 3 * kj::HOURS;
  report.guestUptime = 5 * kj::HOURS;
  report.loadHundredths = {123, 45, 6};
  report.memoryTotal = uint64_t(1) << 33;
  report.memoryAvailable = uint64_t(1) << 32;
  report.policyHash.fill(9);
  auto at = report.at;
  vm.report = kj::mv(report);
  auto since = vm.verdict.since;
  REQUIRE(writer.add(vm) != nullptr);

  auto snapshot = f.reader()->snapshot(monotonicNow());
  CHECK(snapshot.writer == BoardWriterState::ALIVE);
  CHECK(snapshot.writerPid == uint32_t(getpid()));
  CHECK(snapshot.unreadable == 0);
  REQUIRE(snapshot.vms.size() == 1);
  auto& read = snapshot.vms[0];
  CHECK((read.name == "web1"));
  CHECK((read.vm == vm.vm));
  CHECK(read.verdict.sameAs(vm.verdict));
  CHECK(read.verdict.since == since);
  CHECK(read.transport == board::TRANSPORT_SERIAL);
  CHECK(read.linkUp);
  CHECK(read.sessionPid == 4711);
  CHECK(read.sessionCount == 3);
  auto& got = KJ_ASSERT_NONNULL(read.report);
  CHECK(got.at == at);
  CHECK(got.sequence == 99);
  CHECK(got.interval == 1500 * kj::MILLISECONDS);
  CHECK(got.loopLag == 42 * kj::MICROSECONDS);
  CHECK(got.state == GuestState::FROZEN);
  CHECK((got.bootId[15] == 7));
  CHECK((got.agentVersion == "0.1.0"));
  CHECK(got.uptime == 3 * kj::HOURS);
  CHECK(got.guestUptime == 5 * kj::HOURS);
  CHECK((got.loadHundredths[0] == 123 && got.loadHundredths[1] == 45 && got.loadHundredths[2] == 6));
  CHECK(got.memoryTotal == uint64_t(1) << 33);
  CHECK(got.memoryAvailable == uint64_t(1) << 32);
  CHECK((got.policyHash[31] == 9));
}

TEST_CASE("the bytes lie where the layout says") {
  BoardFixture f;
  BoardWriter writer(f.path, monotonicNow(), 4);
  REQUIRE(writer.add(f.vm("first")) != nullptr);
  auto vm = f.vm("web1", Colour::RED, Reason::SILENT);
  vm.sessionPid = 0x01020304;
  GuestReport report;
  report.uptime = 3 * kj::HOURS;
  report.guestUptime = 5 * kj::HOURS;
  vm.report = kj::mv(report);
  REQUIRE(writer.add(vm) != nullptr);
  ScribbledBoard raw(f.path);
  auto bytes = raw.bytes();
  auto u32 = [&](size_t at) {
    uint32_t value;
    memcpy(&value, bytes.begin() + at, 4);
    return value;
  };
  CHECK(bytes.size() == 4096 + 4 * 1024);
  CHECK(memcmp(bytes.begin(), "PSTNBORD", 8) == 0);
  CHECK(u32(8) == 1);
  CHECK(u32(12) == 4096);
  CHECK(u32(16) == 1024);
  CHECK(u32(20) == 4);
  CHECK(u32(32) == uint32_t(getpid()));
  CHECK(u32(96) == 2);
  CHECK(u32(100) == 2);
  size_t slot = 4096 + 1024;
  CHECK(u32(slot) == 2);  // the lock after one write
  CHECK(u32(slot + 8) == 1);
  CHECK(bytes[slot + 12] == 3);
  CHECK(u32(slot + 16) == 64);
  CHECK(u32(slot + 20) == 0x01020304);
  CHECK(memcmp(bytes.begin() + slot + 24, "web1", 5) == 0);
  CHECK(u32(slot + 192) == 3 * 3'600'000);
  CHECK(u32(slot + 264) == 5 * 3'600'000);
  for (size_t i = 272; i < 1024; ++i) CHECK(bytes[slot + i] == 0);
}

BoardPort busyPort() {
  BoardPort port;
  port.blockedByHand = true;
  port.opened = 11;
  port.denied = 12;
  port.refused = 13;
  port.active = 14;
  port.bytesOut = uint64_t(15) << 40;
  port.bytesIn = 16;
  port.messagesOut = 17;
  port.messagesIn = 18;
  port.throttledNanoseconds = 19;
  port.mirrorDropped = 20;
  port.lastDenied = kj::str("no-web");
  return port;
}

TEST_CASE("a port's counters lie where the layout says, and are what a reader gets") {
  BoardFixture f;
  BoardWriter writer(f.path, monotonicNow(), 4);
  auto first = KJ_ASSERT_NONNULL(writer.add(f.vm("first")));
  auto slot = KJ_ASSERT_NONNULL(writer.add(f.vm("web1")));
  writer.updatePort(slot, busyPort());
  ScribbledBoard raw(f.path);
  uint64_t words[board::PORT_WORDS];
  memcpy(words, raw.bytes().begin() + 4096 + 1024 + 512, sizeof(words));
  const uint64_t expected[] = {2, 11, 12, 13, 14, uint64_t(15) << 40, 16, 17, 18, 19, 20, 0, 0, 0, 0, 0};
  for (size_t i = 0; i < kj::size(expected); ++i) CHECK(words[i] == expected[i]);
  CHECK(memcmp(&words[16], "no-web\0", 8) == 0);
  for (size_t i = 17; i < kj::size(words); ++i) CHECK(words[i] == 0);

  auto port = kj::mv(f.reader()->snapshot(monotonicNow()).vms[1].port);
  CHECK_FALSE(port.blockedByPolicy);
  CHECK(port.blockedByHand);
  CHECK(port.opened == 11);
  CHECK(port.denied == 12);
  CHECK(port.refused == 13);
  CHECK(port.active == 14);
  CHECK(port.bytesOut == uint64_t(15) << 40);
  CHECK(port.bytesIn == 16);
  CHECK(port.messagesOut == 17);
  CHECK(port.messagesIn == 18);
  CHECK(port.throttledNanoseconds == 19);
  CHECK(port.mirrorDropped == 20);
  CHECK((port.lastDenied == "no-web"));
  // The rest of the slot and the other VM's are as they were.
  writer.update(slot, f.vm("web1"));
  CHECK(f.reader()->snapshot(monotonicNow()).vms[1].port.opened == 11);
  CHECK(f.reader()->snapshot(monotonicNow()).vms[0].port.opened == 0);
  writer.updatePort(first, BoardPort());
  CHECK(f.reader()->snapshot(monotonicNow()).vms[1].port.opened == 11);
}

TEST_CASE("a VM that gets the slot of one that was removed begins with a port of its own") {
  BoardFixture f;
  BoardWriter writer(f.path, monotonicNow(), 4);
  auto slot = KJ_ASSERT_NONNULL(writer.add(f.vm("web1")));
  writer.updatePort(slot, busyPort());
  writer.remove(slot);
  REQUIRE(KJ_ASSERT_NONNULL(writer.add(f.vm("web2"))) == slot);
  auto port = kj::mv(f.reader()->snapshot(monotonicNow()).vms[0].port);
  CHECK(port.opened == 0);
  CHECK_FALSE(port.blockedByHand);
  CHECK((port.lastDenied == ""));
}

TEST_CASE("whatever stands in a port's words comes out bounded and printable") {
  PortWords words;
  words.fill(~uint64_t(0));
  auto port = decodePort(words);
  CHECK(port.opened == ~uint64_t(0));
  CHECK(port.lastDenied.size() == 64);
  for (char c : port.lastDenied) CHECK(c == '?');
  BoardPort longest;
  longest.lastDenied = kj::str(kj::repeat('x', 200), "\n");
  auto back = decodePort(encodePort(longest));
  CHECK((back.lastDenied == kj::str(kj::repeat('x', 63))));
}

TEST_CASE("KJ's monotonic time and CLOCK_MONOTONIC are one count, so that stamps of two processes compare") {
  timespec before, after;
  clock_gettime(CLOCK_MONOTONIC, &before);
  auto ns = toMonotonicNs(monotonicNow());
  clock_gettime(CLOCK_MONOTONIC, &after);
  CHECK(ns >= uint64_t(before.tv_sec) * 1'000'000'000 + uint64_t(before.tv_nsec));
  CHECK(ns <= uint64_t(after.tv_sec) * 1'000'000'000 + uint64_t(after.tv_nsec));
  CHECK(toMonotonicNs(kj::origin<kj::TimePoint>() - 1 * kj::SECONDS) == 0);
  CHECK(toMonotonicNs(fromMonotonicNs(123)) == 123);
  CHECK(fromMonotonicNs(~uint64_t(0)) > monotonicNow());
}

TEST_CASE("texts that are too long or unprintable are cut and cleaned, numbers that do not fit take the nearest") {
  BoardFixture f;
  BoardWriter writer(f.path, monotonicNow(), 4);
  auto vm = f.vm(kj::str(kj::repeat('n', 64), "overflow"));
  GuestReport report;
  report.at = kj::origin<kj::TimePoint>();  // even then: there is a report
  report.agentVersion = kj::str("\x1b[2J\xff", kj::repeat('v', 100));
  report.interval = -5 * kj::SECONDS;
  report.loopLag = 365 * kj::DAYS;
  report.uptime = -1 * kj::SECONDS;
  report.guestUptime = -1 * kj::SECONDS;
  vm.report = kj::mv(report);
  REQUIRE(writer.add(vm) != nullptr);
  auto snapshot = f.reader()->snapshot(monotonicNow());
  REQUIRE(snapshot.vms.size() == 1);
  CHECK((snapshot.vms[0].name == kj::str(kj::repeat('n', 64))));
  auto& got = KJ_ASSERT_NONNULL(snapshot.vms[0].report);
  CHECK((got.agentVersion == kj::str("?[2J?", kj::repeat('v', 27))));
  CHECK(got.interval == 0 * kj::SECONDS);
  CHECK(got.loopLag == int64_t(0xffffffff) * kj::MICROSECONDS);
  CHECK(got.uptime == 0 * kj::SECONDS);
  CHECK(got.guestUptime == 0 * kj::SECONDS);
}

TEST_CASE("slots are added until the board is full, updated, removed and used again") {
  BoardFixture f;
  BoardWriter writer(f.path, monotonicNow(), 3);
  auto a = KJ_ASSERT_NONNULL(writer.add(f.vm("a")));
  auto b = KJ_ASSERT_NONNULL(writer.add(f.vm("b")));
  auto c = KJ_ASSERT_NONNULL(writer.add(f.vm("c")));
  CHECK(writer.add(f.vm("d")) == nullptr);
  auto reader = f.reader();
  auto names = [&] {
    auto snapshot = reader->snapshot(monotonicNow());
    CHECK(snapshot.unreadable == 0);
    CHECK(snapshot.vms.size() == writer.count());
    return kj::strArray(
        KJ_MAP(vm, snapshot.vms) { return kj::str(vm.name); }, " ");
  };
  CHECK((names() == "a b c"));
  writer.remove(b);
  CHECK((names() == "a c"));
  CHECK_THROWS_AS(writer.update(b, f.vm("x")), kj::Exception);
  CHECK_THROWS_AS(writer.remove(b), kj::Exception);
  CHECK_THROWS_AS(writer.update(3, f.vm("x")), kj::Exception);
  CHECK(KJ_ASSERT_NONNULL(writer.add(f.vm("d"))) == b);
  writer.update(c, f.vm("cc"));
  CHECK((names() == "a d cc"));
  writer.remove(a);
  writer.remove(b);
  writer.remove(c);
  CHECK((names() == ""));
}

TEST_CASE("a removed VM leaves nothing of itself in the file") {
  BoardFixture f;
  BoardWriter writer(f.path, monotonicNow(), 2);
  auto slot = KJ_ASSERT_NONNULL(writer.add(f.vm("confidential")));
  writer.remove(slot);
  ScribbledBoard raw(f.path);
  for (size_t i = 8; i < board::SLOT_BYTES; ++i) CHECK(raw.bytes()[board::HEADER_BYTES + i] == 0);
}

TEST_CASE("the file has mode 0640 whatever the umask, is allocated whole, and leaves no other file behind") {
  for (mode_t mask : {mode_t(0), mode_t(077), mode_t(0777)}) {
    BoardFixture f;
    mode_t before = umask(mask);
    BoardWriter writer(f.path, monotonicNow(), 100, getgid());
    umask(before);
    struct stat info;
    KJ_SYSCALL(stat(f.path.cStr(), &info));
    CHECK((info.st_mode & 07777) == 0640);
    CHECK(info.st_gid == getgid());
    CHECK(info.st_size == off_t(boardBytes(100)));
    CHECK(info.st_blocks * 512 >= info.st_size);
    auto files = std::filesystem::directory_iterator(f.folder.path().cStr());
    CHECK(std::distance(std::filesystem::begin(files), std::filesystem::end(files)) == 1);
  }
}

TEST_CASE("a writer that ends says so, and one that is silent is noticed after three seconds, not before") {
  BoardFixture f;
  auto reader = [&] {
    BoardWriter writer(f.path, monotonicNow(), 4);
    REQUIRE(writer.add(f.vm("web1")) != nullptr);
    auto reader = f.reader();
    auto now = monotonicNow();
    writer.beat(now);
    CHECK(reader->snapshot(now).writer == BoardWriterState::ALIVE);
    CHECK(reader->snapshot(now - 1 * kj::SECONDS).writer == BoardWriterState::ALIVE);  // a reader that looked earlier
    CHECK(reader->snapshot(now + 2999 * kj::MILLISECONDS).writer == BoardWriterState::ALIVE);
    auto silent = reader->snapshot(now + 3 * kj::SECONDS);
    CHECK(silent.writer == BoardWriterState::SILENT);
    CHECK(silent.writerAge == 3 * kj::SECONDS);
    CHECK(silent.vms.size() == 1);
    writer.beat(now + 3 * kj::SECONDS);
    CHECK(reader->snapshot(now + 3 * kj::SECONDS).writer == BoardWriterState::ALIVE);
    return reader;
  }();
  CHECK(reader->snapshot(monotonicNow()).writer == BoardWriterState::ENDED);
  CHECK(f.reader()->snapshot(monotonicNow()).vms.size() == 1);  // it can still be read, as of then
}

TEST_CASE("a new writer takes the path over; readers of the old board are told to open it again") {
  BoardFixture f;
  BoardWriter old(f.path, monotonicNow(), 4);
  REQUIRE(old.add(f.vm("old")) != nullptr);
  auto reader = f.reader();
  BoardWriter fresh(f.path, monotonicNow(), 8);
  REQUIRE(fresh.add(f.vm("new")) != nullptr);
  auto snapshot = reader->snapshot(monotonicNow());
  CHECK(snapshot.writer == BoardWriterState::REPLACED);
  CHECK((snapshot.vms[0].name == "old"));
  snapshot = f.reader()->snapshot(monotonicNow());
  CHECK(snapshot.writer == BoardWriterState::ALIVE);
  CHECK((snapshot.vms[0].name == "new"));
}

TEST_CASE("a writer replaces whatever lies at the path, and what an earlier one left half-made") {
  BoardFixture f;
  f.putFile(kj::StringPtr("garbage").asBytes());
  auto half = kj::str(f.path, ".new");
  KJ_SYSCALL(symlink("/nowhere", half.cStr()));
  BoardWriter writer(f.path, monotonicNow(), 4);
  CHECK(f.reader()->snapshot(monotonicNow()).writer == BoardWriterState::ALIVE);
  CHECK(access("/nowhere", F_OK) != 0);
}

TEST_CASE("a board that cannot be made (no folder, a full disk) throws and leaves the older one as it was") {
  BoardFixture f;
  CHECK_THROWS_AS(BoardWriter(f.folder.file("missing/board"), monotonicNow(), 4), kj::Exception);
  CHECK_THROWS_AS(BoardWriter(f.path, monotonicNow(), 0), kj::Exception);
  CHECK_THROWS_AS(BoardWriter(f.path, monotonicNow(), board::MAX_CAPACITY + 1), kj::Exception);
  BoardWriter writer(f.path, monotonicNow(), 4);
  REQUIRE(writer.add(f.vm("web1")) != nullptr);
  int status = inChild([&] {
    signal(SIGXFSZ, SIG_IGN);
    rlimit small = {8192, 8192};
    KJ_SYSCALL(setrlimit(RLIMIT_FSIZE, &small));
    auto thrown = kj::runCatchingExceptions([&] { BoardWriter another(f.path, monotonicNow(), 4096); });
    return thrown == nullptr ? 1 : 0;
  });
  CHECK(status == 0);
  auto snapshot = f.reader()->snapshot(monotonicNow());
  CHECK(snapshot.writer == BoardWriterState::ALIVE);
  CHECK(snapshot.vms.size() == 1);
  CHECK(access(kj::str(f.path, ".new").cStr(), F_OK) != 0);
}

TEST_CASE("a snapshot of 1,000 VMs") {
  BoardFixture f;
  BoardWriter writer(f.path, monotonicNow());
  for (int i = 0; i < 1000; ++i) {
    auto vm = f.vm(kj::str("vm", i));
    vm.report = GuestReport();
    KJ_ASSERT_NONNULL(vm.report).agentVersion = kj::str("0.1.0");
    REQUIRE(writer.add(vm) != nullptr);
  }
  auto start = std::chrono::steady_clock::now();
  auto reader = f.reader();
  auto snapshot = reader->snapshot(monotonicNow());
  auto taken = std::chrono::steady_clock::now() - start;
  CHECK(snapshot.vms.size() == 1000);
  CHECK((snapshot.vms[999].name == "vm999"));
  auto us = std::chrono::duration_cast<std::chrono::microseconds>(taken).count();
  std::printf("board: opened and 1,000 VMs read in %lld us\n", static_cast<long long>(us));
  CHECK(us < 100'000);
}

}  // namespace
}  // namespace postern::host::test
