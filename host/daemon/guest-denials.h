#pragma once
// GuestDenials: keeps a guest that asks for what it does not get, thousands of times a second and by whatever names,
// from filling the audit log: a flood is a line and then a count. Nothing is left out of the numbers.
//
// Of each VM the first MAX_KINDS different refusals are recorded at once; what follows is counted, by kind, and the
// rest together, and recorded when the window is over. As long as it goes on the windows grow, from FIRST_WINDOW to
// LAST_WINDOW; after one in which nothing came it begins anew.

#include <kj/function.h>
#include <kj/map.h>
#include <kj/string.h>
#include <kj/time.h>
#include <kj/vector.h>

namespace postern::host {

// What a guest was refused, and why in truth.
struct GuestDenial {
  kj::String to;          // "vm:db1", "host"; empty: of names that are none, or of many
  kj::String service;     // empty: likewise
  kj::String rule;        // that denied, or that allowed what could not be brought about
  kj::StringPtr outcome;  // static: "denied", "failed"
  kj::StringPtr reason;   // static: "no-rule", "unknown-vm", "not-reached"

  bool operator==(const GuestDenial& other) const;
};

class GuestDenials {
 public:
  static constexpr size_t MAX_KINDS = 4;
  static constexpr auto FIRST_WINDOW = 5 * kj::SECONDS;
  static constexpr auto LAST_WINDOW = 5 * kj::MINUTES;

  // Whether it is to be recorded now, as one. `times` at least 1.
  bool isFirst(kj::TimePoint now, kj::StringPtr vm, const GuestDenial& denial, uint64_t times = 1);

  // Those whose window is over, with how many there were beside those recorded before.
  using Record = kj::FunctionParam<void(kj::StringPtr vm, const GuestDenial& denial, uint64_t times)>;
  void flush(kj::TimePoint now, Record record);
  // Of a VM that is removed: now.
  void flush(kj::StringPtr vm, Record record);

 private:
  struct Kind {
    GuestDenial denial;
    uint64_t repeated;
  };
  struct Flood {
    kj::TimePoint until;
    kj::Duration window;
    kj::Vector<Kind> kinds;
    uint64_t others = 0;
  };
  kj::HashMap<kj::String, Flood> floods;

  static bool tell(kj::StringPtr vm, Flood& flood, Record& record);
};

}  // namespace postern::host
