#pragma once
// SourceTree: goes through what a caller named, depth first, twice: once to count and once to send. A stack of open
// directories is all that it keeps. What the scope denies is told and not looked at.

#include <kj/vector.h>
#include <sys/stat.h>

#include "protocol/transfer/limits.h"
#include "protocol/transfer/problem.h"
#include "transport/transfer/directory-reader.h"
#include "transport/transfer/source-opener.h"

namespace postern::transfer {

// Where the walk is.
struct SourcePlace {
  int folder;
  kj::StringPtr name;  // in `folder`; "": that directory itself
  kj::StringPtr as;    // what it is called at the other end: a component
  bool follow;         // the name may be a symbolic link that is followed
};

// What is done with what the walk meets. False ends the walk.
class SourceVisitor {
 public:
  // What follows is in it, up to leave(). Not opened (-1) where it is not entered: then leave() is next.
  virtual bool directory(const SourcePlace& place, const struct stat& status, int descriptor) = 0;
  virtual bool leave() = 0;
  // `type` is one of DT_*, known, no directory.
  virtual bool leaf(const SourcePlace& place, unsigned char type) = 0;
  virtual bool failed(const SourcePlace& place, Problem problem) = 0;
};

class SourceTree {
 public:
  SourceTree(kj::ArrayPtr<const SourceTop> tops, const SourceOptions& options);
  KJ_DISALLOW_COPY(SourceTree);

  bool walk(SourceVisitor& visitor);
  // So many directories inside each other were announced: what lies deeper from now on is a problem.
  void announced(uint32_t deepest) { announcedDepth = deepest; }

  // While a visitor is called: directories that were entered and not left.
  uint32_t depth() const { return static_cast<uint32_t>(levels.size()); }
  // As the caller wrote it, and below that.
  kj::String shown(const SourcePlace& place) const;
  // Components from the top with '/' between, as they travel.
  kj::String sentPath(const SourcePlace& place) const;

 private:
  struct Level {
    DirectoryReader reader;
    kj::String as;
    size_t scopeBytes;  // of scopePath, for the directory itself
  };

  kj::ArrayPtr<const SourceTop> tops;
  const SourceOptions& options;
  uint32_t announcedDepth = MAX_DEPTH;
  const SourceTop* top = nullptr;
  kj::Vector<Level> levels;
  kj::Vector<char> scopePath;

  bool visitTop(SourceVisitor& visitor);
  bool step(SourceVisitor& visitor);
  bool leaveLevel(SourceVisitor& visitor);
  bool visit(SourceVisitor& visitor, const SourcePlace& place, unsigned char type);
  bool enter(SourceVisitor& visitor, const SourcePlace& place);
  kj::Maybe<Problem> deniedAt() const;
  kj::Maybe<Problem> tooDeep() const;
  kj::Maybe<Problem> unannounced() const;
};

// DT_* of st_mode.
unsigned char typeOf(const struct stat& status);
// What `place` is; errno if not 0.
int statusOf(const SourcePlace& place, struct stat& to);

}  // namespace postern::transfer
