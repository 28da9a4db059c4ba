#pragma once
// ProgressLine: the one line on a terminal that shows how far a copy is: what is copied, files, bytes, rate, time left.
// Drawn at most every DRAW_INTERVAL; on anything but a terminal never.

#include "host/cli/file-name.h"
#include "host/cli/world.h"
#include "host/client/transfer-watch.h"

namespace postern::cli {

constexpr auto DRAW_INTERVAL = 200 * kj::MILLISECONDS;

// Bytes a second, as of the last seconds.
class RateMeter {
 public:
  void add(kj::TimePoint now, uint64_t bytes);
  double bytesPerSecond() const { return rate; }

 private:
  kj::Maybe<kj::TimePoint> last;
  uint64_t lastBytes = 0;
  double rate = 0;
  bool any = false;
};

// At most `columns` wide; the name gives way. `bytesPerSecond` 0: not known.
kj::String progressText(kj::StringPtr name, const client::TransferProgress& progress, double bytesPerSecond,
                        size_t columns);
// Bytes of the whole that are done: what is on the destination's disk, or has left where that is more.
uint64_t bytesDone(const client::TransferProgress& progress);

class ProgressLine {
 public:
  enum class Shown : uint8_t { NO, YES };
  ProgressLine(World& world, Letters letters, Shown shown) : world(world), letters(letters), shown(shown) {}
  ~ProgressLine() noexcept(false) { clear(); }
  KJ_DISALLOW_COPY(ProgressLine);

  // `name`: what is copied, if the progress does not know.
  void draw(kj::StringPtr name, const client::TransferProgress& progress);
  // Before anything else is written to the terminal.
  void clear();

 private:
  World& world;
  const Letters letters;
  const Shown shown;
  RateMeter rate;
  kj::Maybe<kj::TimePoint> drawn;
  bool visible = false;
};

}  // namespace postern::cli
