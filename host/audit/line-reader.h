#pragma once
// LineReader: a file line by line, with memory for one line of the audit log, whatever the file holds. Opens regular
// files only, and no symbolic links.

#include <kj/array.h>
#include <kj/common.h>
#include <kj/io.h>
#include <kj/string.h>
#include <kj/vector.h>

namespace postern::host {

class LineReader {
 public:
  // Null if it cannot be opened or is no regular file; errno says why.
  static kj::Maybe<LineReader> open(kj::StringPtr path);

  struct Line {
    kj::ArrayPtr<const char> text;  // without its newline; good until the next call
    uint64_t offset;                // of its first byte in the file
    bool ended;                     // false: the file ends without a newline. At most its last line
    bool tooLong;                   // longer than any line of an audit log; `text` is its beginning
  };
  // Null at the end. Throws if the disk refuses.
  kj::Maybe<Line> next();

 private:
  explicit LineReader(kj::AutoCloseFd file);
  bool fill();

  kj::AutoCloseFd file;
  kj::Array<char> buffer;
  size_t begin = 0;  // of what is unread in the buffer
  size_t end = 0;
  uint64_t position = 0;  // of `begin` in the file
};

}  // namespace postern::host
