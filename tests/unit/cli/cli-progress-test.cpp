// What is shown of a copy, and of the files of a guest.

#include "host/cli/entry-text.h"
#include "host/cli/progress-line.h"
#include "host/cli/quantity.h"
#include "tests/unit/cli/cli-fixture.h"

using namespace postern;
using namespace postern::cli;
using namespace postern::test;

namespace {

client::TransferProgress halfway() {
  client::TransferProgress progress;
  progress.counted = true;
  progress.totals.files = 340;
  progress.totals.directories = 3;
  progress.totals.bytes = uint64_t(310) << 20;
  progress.doneEntries = 12;
  progress.doneBytes = uint64_t(45) << 20;
  return progress;
}

transfer::Entry entryOf(transfer::EntryKind kind, uint16_t mode) {
  transfer::Entry entry;
  entry.kind = kind;
  entry.mode = mode;
  entry.uid = 1000;
  entry.gid = 33;
  entry.group = kj::str("www-data");
  entry.size = 1234;
  return entry;
}

}  // namespace

TEST_CASE("numbers that no honest guest has are shown as some number") {
  CHECK_TEXT(describeRate(9e40), "15.6 EiB/s");
  CHECK_TEXT(describeRate(-1), "0 B/s");
  CHECK_TEXT(describeRate(0.0 / 0.0), "0 B/s");
  client::TransferProgress hostile;
  hostile.counted = true;
  hostile.totals.bytes = hostile.doneBytes = hostile.sentBytes = UINT64_MAX;
  hostile.doneEntries = UINT64_MAX;
  CHECK_TEXT(progressText("x", hostile, 9e40, 100), "x  0/0 files  16.0 EiB of 16.0 EiB  15.6 EiB/s  1.0 s left");
}

TEST_CASE("the line says what is copied, files, bytes, rate and time left") {
  CHECK_TEXT(progressText("site", halfway(), 23.4 * (1 << 20), 100),
             "site  11/340 files  45.0 MiB of 310.0 MiB  23.4 MiB/s  12 s left");
  CHECK_TEXT(progressText("site", halfway(), 0, 100), "site  11/340 files  45.0 MiB of 310.0 MiB");
  client::TransferProgress counting;
  CHECK_TEXT(progressText("site", counting, 0, 100), "site  counting");
}

TEST_CASE("a name that is too wide gives way from its front, and no line is wider than the terminal") {
  auto name = kj::str(kj::repeat('x', 300), "/index.html");
  for (size_t columns = 1; columns < 200; ++columns) {
    auto text = progressText(name, halfway(), 1e6, columns);
    CHECK(text.size() <= columns);
  }
  CHECK(contains(progressText(name, halfway(), 1e6, 90), "/index.html  11/340 files"));
}

TEST_CASE("what has left counts until the destination has it, and never more than there is") {
  auto progress = halfway();
  progress.sentBytes = uint64_t(50) << 20;
  CHECK(bytesDone(progress) == uint64_t(50) << 20);
  progress.sentBytes = UINT64_MAX;
  CHECK(bytesDone(progress) == progress.totals.bytes);
}

TEST_CASE("the rate is of the last seconds") {
  RateMeter meter;
  auto now = kj::origin<kj::TimePoint>();
  for (uint64_t i = 0; i < 100; ++i) meter.add(now + static_cast<int64_t>(i) * 200 * kj::MILLISECONDS, i * 1000);
  CHECK(meter.bytesPerSecond() == doctest::Approx(5000));
  for (uint64_t i = 100; i < 150; ++i) meter.add(now + static_cast<int64_t>(i) * 200 * kj::MILLISECONDS, 99'000);
  CHECK(meter.bytesPerSecond() < 10);
}

TEST_CASE("a mode is written as ls writes it") {
  using transfer::EntryKind;
  CHECK_TEXT(modeText(entryOf(EntryKind::FILE, 0644)), "-rw-r--r--");
  CHECK_TEXT(modeText(entryOf(EntryKind::DIRECTORY, 01777)), "drwxrwxrwt");
  CHECK_TEXT(modeText(entryOf(EntryKind::FILE, 06755)), "-rwsr-sr-x");
  CHECK_TEXT(modeText(entryOf(EntryKind::FILE, 06644)), "-rwSr-Sr--");
  CHECK_TEXT(modeText(entryOf(EntryKind::SYMBOLIC_LINK, 0777)), "lrwxrwxrwx");
}

TEST_CASE("columns of a list are as wide as their widest, and an owner without a name is a number") {
  kj::Vector<ListLine> lines;
  lines.add(ListLine{kj::str("a b"), entryOf(transfer::EntryKind::FILE, 0644)});
  lines.add(ListLine{kj::str("link"), entryOf(transfer::EntryKind::SYMBOLIC_LINK, 0777)});
  lines[1].entry.target = kj::str("/etc/\n");
  lines[1].entry.size = 7;
  lines[1].entry.owner = kj::str("al\033ice");
  auto time = localTime(0);
  CHECK_TEXT(detailsOf(lines, Letters::ASCII),
             kj::str("-rw-r--r-- 1000   www-data 1234 ", time, " a\\ b\n",  //
                     "lrwxrwxrwx al?ice www-data    7 ", time, " link -> /etc/\\n\n"));
}

TEST_CASE("a time that no calendar has is no time") {
  CHECK_TEXT(localTime(INT64_MAX), "?");
  JsonWriter json;
  auto entry = entryOf(transfer::EntryKind::FILE, 0600);
  entry.modifiedSeconds = 1'000'000'000;
  entry.modifiedNanoseconds = 5;
  json.beginObject();
  writeEntry(json, "x", entry);
  auto text = json.endObject().finish();
  CHECK(contains(text, "\"mode\":\"0600\""));
  CHECK(contains(text, "\"modified\":\"2001-09-09T01:46:40.000000005Z\""));
}
