#pragma once
// Vitals: what a heartbeat says about this guest. Reads two descriptors of /proc that are opened before the sandbox,
// and clocks. Allocates nothing.

#include <kj/io.h>
#include <kj/time.h>

#include "protocol/establish.h"
#include "protocol/guest.capnp.h"

namespace postern::guest {

// The clocks that heartbeats need; in tests, turned by hand.
class Clocks {
 public:
  virtual ~Clocks() noexcept(false) {}
  virtual kj::Duration monotonic() const = 0;  // CLOCK_MONOTONIC, which the loop's timer goes by
  virtual kj::Duration boot() const = 0;       // CLOCK_BOOTTIME: as monotonic, and time that the guest was suspended
};
class SystemClocks final : public Clocks {
 public:
  kj::Duration monotonic() const override;
  kj::Duration boot() const override;
};

// Notices that the guest did not run: it was suspended (the two clocks move apart), or paused by the hypervisor so that
// heartbeats lie further apart than three intervals.
class GapWatch {
 public:
  explicit GapWatch(const Clocks& clocks);
  // At each heartbeat; true if there was a gap since the last one.
  bool sawGap(kj::Duration interval);
  // There were no heartbeats for another reason, such as no link.
  void skip();

 private:
  const Clocks& clocks;
  kj::Duration apart;
  kj::Maybe<kj::Duration> last;
};

class Vitals {
 public:
  // Null descriptors are allowed; what they would say is left at zero.
  Vitals(kj::Maybe<kj::AutoCloseFd> loadavg, kj::Maybe<kj::AutoCloseFd> meminfo, const Clocks& clocks, Uint128 bootId);
  // Of this machine, whatever --root says. Before the sandbox.
  static Vitals open(const Clocks& clocks);

  Uint128 bootId() const { return boot; }
  // Uptimes, load, memory, boot id.
  void fill(schema::Heartbeat::Builder out) const;

 private:
  kj::Maybe<kj::AutoCloseFd> loadavg;
  kj::Maybe<kj::AutoCloseFd> meminfo;
  const Clocks& clocks;
  Uint128 boot;
  kj::Duration began;
};

// The 128 bits of /proc/sys/kernel/random/boot_id; zeros for anything else.
Uint128 parseBootId(kj::ArrayPtr<const char> text);

// "0.52 0.58 0.59 1/467 12345": the three, times 100. Zeros where it is something else.
struct LoadAverages {
  uint32_t one = 0, five = 0, fifteen = 0;
};
LoadAverages parseLoadavg(kj::ArrayPtr<const char> text);

// The number of the line "NAME:   12345 kB"; 0 if there is none.
uint64_t meminfoValue(kj::ArrayPtr<const char> text, kj::StringPtr name);

}  // namespace postern::guest
