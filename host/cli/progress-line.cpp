#include "host/cli/progress-line.h"

#include "host/cli/quantity.h"

namespace postern::cli {

namespace {

constexpr size_t LEAST_NAME_COLUMNS = 8;
constexpr double MAX_SECONDS_LEFT = 99 * 3600.0;

// Columns, near enough: bytes that begin a character.
size_t widthOf(kj::StringPtr text) {
  size_t columns = 0;
  for (char c : text) columns += (static_cast<unsigned char>(c) & 0xc0) != 0x80;
  return columns;
}

// The end of a name that is too wide, which tells more than its beginning.
kj::String fitted(kj::StringPtr name, size_t columns) {
  if (widthOf(name) <= columns) return kj::str(name);
  size_t begin = 0;
  for (size_t width = widthOf(name) + 3; begin < name.size() && width > columns; --width) {
    ++begin;
    while (begin < name.size() && (static_cast<unsigned char>(name[begin]) & 0xc0) == 0x80) ++begin;
  }
  return kj::str("...", name.slice(begin));
}

kj::String counted(uint64_t done, uint64_t total) {
  return kj::str("  ", kj::min(done, total), '/', total, total == 1 ? " file" : " files");
}

kj::String leftText(uint64_t bytes, double bytesPerSecond) {
  if (bytesPerSecond < 1) return kj::str();
  double seconds = static_cast<double>(bytes) / bytesPerSecond;
  if (seconds > MAX_SECONDS_LEFT) return kj::str();
  return kj::str("  ", describeDuration((static_cast<int64_t>(seconds) + 1) * kj::SECONDS), " left");
}

}  // namespace

void RateMeter::add(kj::TimePoint now, uint64_t bytes) {
  KJ_IF_MAYBE (before, last) {
    double seconds = milliseconds(now - *before) / 1000;
    if (seconds <= 0) return;
    double present = bytes > lastBytes ? static_cast<double>(bytes - lastBytes) / seconds : 0;
    rate = any ? rate * 0.85 + present * 0.15 : present;
    any = true;
  }
  last = now;
  lastBytes = bytes;
}

uint64_t bytesDone(const client::TransferProgress& progress) {
  auto done = kj::max(progress.doneBytes, progress.sentBytes);
  return progress.counted ? kj::min(done, progress.totals.bytes) : done;
}

kj::String progressText(kj::StringPtr name, const client::TransferProgress& progress, double bytesPerSecond,
                        size_t columns) {
  auto done = bytesDone(progress);
  kj::String rest;
  if (progress.counted) {
    auto& totals = progress.totals;
    // Directories are entries, too, and which of them are done nobody says.
    auto share = static_cast<double>(progress.doneEntries) / static_cast<double>(totals.files + totals.directories);
    auto filesDone = share < 1 ? static_cast<uint64_t>(share * static_cast<double>(totals.files)) : totals.files;
    rest = kj::str(counted(filesDone, totals.files), "  ", describeBytes(done), " of ", describeBytes(totals.bytes),
                   bytesPerSecond < 1 ? kj::str() : kj::str("  ", describeRate(bytesPerSecond)),
                   leftText(totals.bytes - done, bytesPerSecond));
  } else {
    rest = kj::str(done == 0 ? "  counting"_kj : "  "_kj, done == 0 ? kj::str() : describeBytes(done));
  }
  size_t room = columns > rest.size() + LEAST_NAME_COLUMNS ? columns - rest.size() : LEAST_NAME_COLUMNS;
  auto whole = kj::str(fitted(name, room), rest);
  return widthOf(whole) <= columns ? kj::mv(whole) : kj::heapString(whole.slice(0, kj::min(whole.size(), columns)));
}

void ProgressLine::draw(kj::StringPtr name, const client::TransferProgress& progress) {
  if (shown == Shown::NO) return;
  auto now = world.now();
  KJ_IF_MAYBE (before, drawn) {
    if (now - *before < DRAW_INTERVAL) return;
  }
  drawn = now;
  rate.add(now, bytesDone(progress));
  auto label = shownPath(progress.last.size() > 0 ? progress.last : name, letters);
  auto columns = world.errorColumns();
  world.error(
      kj::str('\r', progressText(label, progress, rate.bytesPerSecond(), columns > 1 ? columns - 1 : 1), "\033[K"));
  visible = true;
}

void ProgressLine::clear() {
  if (!visible) return;
  visible = false;
  world.error("\r\033[K");
}

}  // namespace postern::cli
