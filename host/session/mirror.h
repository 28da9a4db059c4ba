#pragma once
// Mirror: frames about channels, and of their bytes, to an inspection appliance, over one stream socket. posternd has
// connected it and handed it over; nobody else writes to it.
//
//   u32 length of the rest | u8 type | u64 channel id | payload          little-endian
//   0 opened  JSON: {"time","who","to","service","rule"}
//   1 bytes towards the service, 2 bytes back: one piece each, in the order in which they passed
//   3 closed  JSON: {"time","why","bytes-there","bytes-back","messages-there","messages-back","throttled-us",
//             "duration-us"}
//   4 lost    u64 frames of this channel that were dropped before this one
//
// Guarantees: never waits, and never makes anyone wait. A frame that the socket does not take now is dropped; one of
// which it has taken the beginning is kept and goes first, so that the stream stays one of whole frames. An appliance
// that closes or cannot be reached costs all frames from then on and nothing else. Reads nothing. One loop.

#include <kj/array.h>
#include <kj/async-unix.h>
#include <kj/io.h>
#include <kj/refcount.h>
#include <kj/string.h>

#include "host/session/channels/traffic-counters.h"
#include "transport/close-elsewhere.h"

namespace postern::host {

class Mirror final : public kj::Refcounted {
 public:
  enum class Frame : kj::byte { OPENED = 0, BYTES_THERE = 1, BYTES_BACK = 2, CLOSED = 3, LOST = 4 };

  // Null, or what is no stream socket: there is no appliance.
  Mirror(kj::UnixEventPort& port, kj::AutoCloseFd socket);
  ~Mirror() noexcept(false);
  KJ_DISALLOW_COPY(Mirror);

  // False: it was dropped.
  bool send(Frame type, uint64_t channel, kj::ArrayPtr<const kj::byte> payload);
  // A frame was begun and is not yet out.
  bool isBusy() const { return begun != nullptr; }

 private:
  StrangersFd socket;  // null: there is no appliance any more
  kj::Maybe<kj::UnixEventPort::FdObserver> observer;
  kj::Array<kj::byte> begun;  // a frame whose beginning is out
  size_t done = 0;            // of it
  kj::Promise<void> flushing = nullptr;

  ssize_t write(kj::ArrayPtr<const kj::byte> first, kj::ArrayPtr<const kj::byte> second);
  kj::Promise<void> flush();
  bool tryFlush();
  void gone();
};

// One channel, as its mirror shows it.
class MirroredChannel {
 public:
  struct Terms {
    kj::Own<Mirror> mirror;
    bool full;       // bytes as well as records
    kj::String who;  // "user:alice", "vm:web1"
    kj::String to;   // "vm:db1", "host"
  };
  // `dropped` counts frames; it and the clock outlive this.
  MirroredChannel(Terms terms, uint64_t id, const kj::Clock& clock, uint64_t& dropped);
  KJ_DISALLOW_COPY(MirroredChannel);

  void opened(kj::StringPtr service, kj::StringPtr rule);
  void passed(TrafficWay way, kj::ArrayPtr<const kj::byte> bytes);
  void closed(kj::StringPtr why, const TrafficCounters& traffic, kj::Duration took);

  Mirror& mirror() { return *terms.mirror; }

 private:
  Terms terms;
  const uint64_t id;
  const kj::Clock& clock;
  uint64_t& dropped;
  uint64_t lost = 0;  // since the appliance was told last

  void send(Mirror::Frame type, kj::ArrayPtr<const kj::byte> payload);
};

}  // namespace postern::host
