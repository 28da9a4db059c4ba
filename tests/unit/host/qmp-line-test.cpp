#include "host/qmp/qmp-line.h"

#include <doctest/doctest.h>
#include <kj/string.h>

namespace postern::host {

namespace {

// The lines of `text`, given in pieces of `step` bytes; "TOO LONG" ends it.
kj::String linesOf(kj::StringPtr text, size_t step) {
  QmpLines lines;
  kj::Vector<kj::String> result;
  for (size_t at = 0; at < text.size(); at += step) {
    lines.begin(text.asArray().slice(at, kj::min(at + step, text.size())));
    for (;;) {
      auto next = lines.next();
      if (next.is<QmpLines::UsedUp>()) break;
      if (next.is<QmpLines::TooLong>()) return kj::str("TOO LONG");
      result.add(kj::str(next.get<QmpLines::Line>().untrustedText));
    }
  }
  return kj::strArray(result, "|");
}

kj::String repeat(char c, size_t count) {
  auto text = kj::heapString(count);
  for (char& each : text) each = c;
  return text;
}

}  // namespace

TEST_CASE("lines are the same however the stream is cut") {
  auto text = "first\r\n\nsecond line\n\r\nth\rird\nunfinished"_kj;
  for (size_t step = 1; step <= text.size(); ++step) {
    CAPTURE(step);
    CHECK((linesOf(text, step) == "first||second line||th\rird"));
  }
}

TEST_CASE("a line may have MAX_QMP_LINE_BYTES bytes and not one more, in whatever pieces it comes") {
  auto longest = repeat('x', MAX_QMP_LINE_BYTES);
  for (size_t step : {size_t(1), size_t(4096), size_t(100000)}) {
    CAPTURE(step);
    CHECK((linesOf(kj::str(longest, "\n", longest, "\nlast\n"), step) == kj::str(longest, "|", longest, "|last")));
    CHECK((linesOf(kj::str(longest, "x\n"), step) == "TOO LONG"));
  }
}

TEST_CASE("a line without an end is given up at the bound") {
  QmpLines lines;
  auto piece = repeat('x', 4096);
  size_t taken = 0;
  for (;; taken += piece.size()) {
    REQUIRE(taken <= MAX_QMP_LINE_BYTES);
    lines.begin(piece);
    if (lines.next().is<QmpLines::TooLong>()) break;
    CHECK(lines.isInLine());
  }
  CHECK(taken == MAX_QMP_LINE_BYTES);
}

TEST_CASE("a stream is in a line from the line's first byte to its end") {
  QmpLines lines;
  CHECK_FALSE(lines.isInLine());
  lines.begin("ab"_kj.asArray());
  CHECK(lines.next().is<QmpLines::UsedUp>());
  CHECK(lines.isInLine());
  lines.begin("c\n"_kj.asArray());
  CHECK(lines.next().is<QmpLines::Line>());
  CHECK_FALSE(lines.isInLine());
  CHECK(lines.next().is<QmpLines::UsedUp>());
  CHECK_FALSE(lines.isInLine());
}

}  // namespace postern::host
