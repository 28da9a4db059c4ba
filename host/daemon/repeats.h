#pragma once
// Repeats: keeps a caller that asks the same thing a thousand times from writing the audit log full, which would rotate
// away what others did. The first of a kind is recorded at once; those that follow within REPEAT_WINDOW are counted,
// and the count is recorded when the window is over. Nothing is left out of the numbers.

#include <kj/function.h>
#include <kj/map.h>
#include <kj/string.h>
#include <kj/time.h>

namespace postern::host {

constexpr auto REPEAT_WINDOW = 5 * kj::SECONDS;
// Kinds that are remembered; above it everything is recorded.
constexpr size_t MAX_REPEAT_KINDS = 4096;

struct DecisionKind {
  kj::String who, vm, call, rule, outcome, path;
};
// Decisions about longer paths are all recorded.
constexpr size_t MAX_REPEATED_PATH_BYTES = 256;

class Repeats {
 public:
  // Whether this one is to be recorded now. `path`: empty, or of any bytes.
  bool isFirst(kj::TimePoint now, kj::StringPtr who, kj::StringPtr vm, kj::StringPtr call, kj::StringPtr rule,
               kj::StringPtr outcome, kj::StringPtr path = nullptr);
  // Those whose window is over, with how many came after the first; only where there were any.
  void flush(kj::TimePoint now, kj::FunctionParam<void(const DecisionKind&, uint64_t)> record);

 private:
  struct Entry {
    DecisionKind kind;
    kj::TimePoint until;
    uint64_t repeated = 0;
  };
  kj::HashMap<kj::String, Entry> entries;
};

}  // namespace postern::host
