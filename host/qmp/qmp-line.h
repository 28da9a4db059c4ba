#pragma once
// QmpLines: the lines of a QMP stream. Holds one unfinished line and never more than MAX_QMP_LINE_BYTES of it, whatever
// arrives. Plain memory: reads nothing itself.

#include <kj/array.h>
#include <kj/common.h>
#include <kj/one-of.h>
#include <kj/vector.h>

#include "host/qmp/qmp-watch.h"

namespace postern::host {

class QmpLines {
 public:
  QmpLines() = default;
  KJ_DISALLOW_COPY(QmpLines);

  struct Line {
    kj::ArrayPtr<const char> untrustedText;  // without its end (LF or CR LF); good until the next call
  };
  struct TooLong {};  // for good
  struct UsedUp {};   // no whole line is left: begin() with more

  // The next bytes of the stream; only when the earlier ones are used up. They stay where they are until then.
  void begin(kj::ArrayPtr<const char> chunk) { unread = chunk; }
  kj::OneOf<Line, TooLong, UsedUp> next();

  // A line has begun and not ended.
  bool isInLine() const { return !handedOut && !unfinished.empty(); }

 private:
  kj::ArrayPtr<const char> unread;
  kj::Vector<char> unfinished;
  bool handedOut = false;  // what `unfinished` holds has been a line
};

}  // namespace postern::host
