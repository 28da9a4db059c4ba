#include "host/audit/audit-verify.h"

#include <doctest/doctest.h>

#include "tests/support/sanitized.h"
#include "tests/unit/host/audit-fixture.h"

namespace postern::host::test {
namespace {

using Kind = AuditProblem::Kind;

kj::Vector<kj::String> linesOf(kj::StringPtr path) {
  kj::Vector<kj::String> lines;
  auto content = readFile(path);
  auto rest = content.slice(0);
  while (rest.size() > 0) {
    auto end = KJ_ASSERT_NONNULL(rest.findFirst('\n'));
    lines.add(kj::heapString(rest.slice(0, end + 1)));
    rest = rest.slice(end + 1);
  }
  return lines;
}

void put(kj::StringPtr path, kj::Vector<kj::String>& lines) {
  writeFile(path, kj::strArray(lines, ""));
}

// Where it is is part of the answer.
void checkProblem(const AuditProblem& found, kj::StringPtr path, uint64_t line) {
  CHECK((found.file == path));
  CHECK(found.line == line);
  CHECK(contains(found.text, line == 0 ? kj::str(path, ": ") : kj::str(path, ":", line, ": ")));
}

// T55
TEST_CASE("every byte of a short log flipped is found, in its line or where the next line belies it") {
  AuditFixture f;
  f.fill(4);
  auto whole = readFile(f.path);
  uint64_t line = 1;
  for (size_t at = 0; at < whole.size(); at += postern::test::SAMPLE_STEP) {
    for (kj::byte mask : {kj::byte(1), kj::byte(0x20), kj::byte(0xff)}) {
      auto damaged = kj::str(whole);
      damaged[at] = char(kj::byte(damaged[at]) ^ mask);
      writeFile(f.path, damaged);
      line = 1;
      for (size_t i = 0; i < at; ++i) line += whole[i] == '\n';
      auto found = f.problem();
      if (found.line != line) FAIL("byte ", at, " was found in line ", found.line);
    }
  }
}

TEST_CASE("each line dropped is found where it is missing; the last one only by the remembered head") {
  AuditFixture f;
  f.fill(6);
  auto head = f.sound().head;
  for (size_t drop = 0; drop < 6; ++drop) {
    auto lines = linesOf(f.path);
    auto all = kj::strArray(lines, "");
    kj::Vector<kj::String> fewer;
    for (size_t i = 0; i < lines.size(); ++i) {
      if (i != drop) fewer.add(kj::mv(lines[i]));
    }
    put(f.path, fewer);
    if (drop < 5) {
      auto found = f.problem();
      CHECK(found.kind == Kind::CHAIN);
      checkProblem(found, f.path, drop + 1);
    } else {
      CHECK(f.sound().lines == 5);
      checkProblem(f.problem(kj::StringPtr(head)), f.path, 0);
      CHECK(f.problem(kj::StringPtr(head)).kind == Kind::HEAD);
    }
    writeFile(f.path, all);
  }
}

// T55
TEST_CASE("each line doubled, and each pair of lines exchanged, is found") {
  AuditFixture f;
  f.fill(6);
  auto all = readFile(f.path);
  for (size_t which = 0; which < 6; ++which) {
    auto lines = linesOf(f.path);
    lines[which] = kj::str(lines[which], lines[which]);
    put(f.path, lines);
    checkProblem(f.problem(), f.path, which + 2);
    writeFile(f.path, all);
  }
  for (size_t one = 0; one < 6; ++one) {
    for (size_t other = one + 1; other < 6; ++other) {
      auto lines = linesOf(f.path);
      auto moved = kj::mv(lines[one]);
      lines[one] = kj::mv(lines[other]);
      lines[other] = kj::mv(moved);
      put(f.path, lines);
      checkProblem(f.problem(), f.path, one + 1);
      writeFile(f.path, all);
    }
  }
}

TEST_CASE("a log cut at any byte: an unfinished line is found by itself, whole lines by the remembered head") {
  AuditFixture f;
  f.fill(3);
  auto head = f.sound().head;
  auto whole = readFile(f.path);
  for (size_t length = 0; length < whole.size(); length += postern::test::SAMPLE_STEP) {
    writeFile(f.path, whole.slice(0, length));
    bool betweenLines = length == 0 || whole[length - 1] == '\n';
    CHECK(f.verify().is<AuditSummary>() == betweenLines);
    CHECK(f.verify(kj::StringPtr(head)).is<AuditProblem>());
  }
}

TEST_CASE("a remembered head of any earlier moment is found as long as its line is there") {
  AuditFixture f;
  f.fill(3);
  auto head = f.sound().head;
  f.fill(3);
  CHECK(f.sound(kj::StringPtr(head)).lines == 6);
  auto other = kj::str(kj::repeat('0', 64));
  CHECK(f.problem(kj::StringPtr(other)).kind == Kind::HEAD);
  KJ_SYSCALL(unlink(f.path.cStr()));
  CHECK(f.problem(kj::StringPtr(head)).kind == Kind::HEAD);  // all of it gone
}

TEST_CASE("a line that was altered and given a new sum is belied by the next one") {
  AuditFixture f;
  f.fill(3);
  auto lines = linesOf(f.path);
  auto parsed = KJ_ASSERT_NONNULL(parseLine(lines[1].slice(0, lines[1].size() - 1)));
  LinePlace place;
  place.sequence = parsed.sequence;
  place.previous = hashLine(lines[0].slice(0, lines[0].size() - 1));
  lines[1] = formatLine(f.event("forged"), place);
  put(f.path, lines);
  auto found = f.problem();
  CHECK(found.kind == Kind::CHAIN);
  checkProblem(found, f.path, 3);
}

TEST_CASE("over several files: a file that is missing, altered, cut, exchanged or doubled is found and named") {
  AuditFixture f;
  f.options.fileBytes = 1200;
  f.fill(20);
  auto files = auditFiles(f.path);
  REQUIRE(files.size() >= 4);
  CHECK(f.sound().lines == 20);
  auto kinds = [&](kj::ArrayPtr<const kj::String> some) {
    auto result = verifyAudit(some);
    return result.is<AuditProblem>() ? kj::mv(result.get<AuditProblem>().file) : kj::String();
  };
  auto pick = [&](std::initializer_list<size_t> which) {
    kj::Vector<kj::String> some;
    for (auto i : which) some.add(kj::str(files[i]));
    return some;
  };
  CHECK((kinds(pick({0, 1, 2, 3})) == ""));
  CHECK((kinds(pick({1, 2, 3})) == ""));  // the oldest rotated away: that alone cannot be told
  CHECK((kinds(pick({0, 2, 3})) == files[2]));
  CHECK((kinds(pick({0, 2, 1, 3})) == files[2]));
  CHECK((kinds(pick({0, 1, 1, 2})) == files[1]));

  auto second = readFile(files[1]);
  writeFile(files[1], second.slice(0, second.size() - 1));  // its end
  CHECK((f.problem().file == files[1]));
  CHECK(f.problem().kind == Kind::ALTERED);
  auto lines = linesOf(files[0]);
  writeFile(files[1], second);
  lines.removeLast();  // a whole line at the end of an older file
  put(files[0], lines);
  checkProblem(f.problem(), files[1], 1);
  KJ_SYSCALL(unlink(files[0].cStr()));
  KJ_SYSCALL(mkdir(files[0].cStr(), 0700));
  checkProblem(f.problem(), files[0], 0);
  CHECK(f.problem().kind == Kind::UNREADABLE);
}

TEST_CASE(
    "files that are no logs: garbage, endless lines and NULs are found at their first line, and tail passes them "
    "over") {
  AuditFixture f;
  const kj::String bad[] = {kj::str("\n"), kj::str("garbage\n"), kj::str(kj::repeat('x', 5 << 20), "\n"),
                            kj::str(kj::repeat('\0', 1000), "\n{}\n")};
  for (auto& content : bad) {
    writeFile(f.path, content);
    auto found = f.problem();
    CHECK(found.kind == Kind::ALTERED);
    CHECK(found.line == 1);
    CHECK(auditTail(auditFiles(f.path), 10).size() == 0);
  }
  writeFile(f.path, kj::str(kj::repeat('x', 5 << 20)));
  CHECK(f.problem().kind == Kind::UNFINISHED);
  CHECK(auditTail(auditFiles(f.path), 10).size() == 0);
}

}  // namespace
}  // namespace postern::host::test
