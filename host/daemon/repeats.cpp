#include "host/daemon/repeats.h"

#include <kj/vector.h>

namespace postern::host {

// T57
bool Repeats::isFirst(kj::TimePoint now, kj::StringPtr who, kj::StringPtr vm, kj::StringPtr call, kj::StringPtr rule,
                      kj::StringPtr outcome, kj::StringPtr path) {
  if (path.size() > MAX_REPEATED_PATH_BYTES) return true;
  // No part but the last has a line feed: names and calls are checked, rules' ids as well.
  auto key = kj::str(who, '\n', vm, '\n', call, '\n', rule, '\n', outcome, '\n', path);
  KJ_IF_MAYBE (entry, entries.find(key)) {
    if (now < entry->until) {
      ++entry->repeated;
      return false;
    }
    if (entry->repeated > 0) return true;  // flush() comes first
    entry->until = now + REPEAT_WINDOW;
    return true;
  }
  if (entries.size() < MAX_REPEAT_KINDS) {
    DecisionKind kind{kj::str(who), kj::str(vm), kj::str(call), kj::str(rule), kj::str(outcome), kj::str(path)};
    entries.insert(kj::mv(key), Entry{kj::mv(kind), now + REPEAT_WINDOW});
  }
  return true;
}

void Repeats::flush(kj::TimePoint now, kj::FunctionParam<void(const DecisionKind&, uint64_t)> record) {
  kj::Vector<kj::String> over;
  for (auto& entry : entries) {
    if (now < entry.value.until) continue;
    if (entry.value.repeated > 0) record(entry.value.kind, entry.value.repeated);
    over.add(kj::str(entry.key));
  }
  for (auto& key : over) entries.erase(key);
}

}  // namespace postern::host
