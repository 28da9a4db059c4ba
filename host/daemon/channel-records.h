#pragma once
// ChannelRecords: what is written down of channels: in the audit log a line when one opens and one when it closes, and
// a line for what was refused; events for what was denied. `who` asks, `call` is service.NAME, `outcome` says which
// line it is:
//
//   channel.open    channel, to, mirror
//   channel.close   channel, to, why, and, as the session has told them: bytes-there, bytes-back, messages-there,
//                   messages-back, throttled-us, duration-us
//                   claimed-by: after a restart of posternd, the VM whose session alone says that there was it
//   denied, failed, ...   to, reason: the true one, which the guest is not told

#include "host/daemon/guest-denials.h"
#include "host/daemon/live-channels.h"
#include "host/daemon/records.h"

namespace postern::host {

class ChannelRecords {
 public:
  explicit ChannelRecords(kj::Timer& timer, Records& records);

  [[nodiscard]] Records::Hindrance opened(const ChannelEntry& channel);
  void closed(const ChannelEntry& channel, kj::StringPtr why, kj::Maybe<const ChannelClosing&> closing);
  // An administrator closes it: `call` is channel.cut.
  void cut(kj::StringPtr who, const ChannelEntry& channel);
  // Of a guest. The first of a flood at once, with what there is to say of it to the administrator; the others by
  // flush().
  void refused(kj::StringPtr vm, const GuestDenial& denial, uint64_t times = 1, kj::StringPtr detail = "");
  // Of a program of the host, by the session: `why` is printable.
  void refused(kj::StringPtr who, kj::StringPtr vm, kj::StringPtr service, kj::StringPtr rule, kj::StringPtr why,
               uint64_t times);

  void flush(kj::TimePoint now);
  // What is counted of a VM that goes.
  void flush(kj::StringPtr vm);

 private:
  kj::Timer& timer;
  Records& records;
  GuestDenials denials;
  Damper refusals;  // by caller

  void write(kj::StringPtr vm, const GuestDenial& denial, kj::StringPtr outcome, kj::StringPtr detail);
  void writeCount(kj::StringPtr vm, const GuestDenial& denial, uint64_t times);
};

}  // namespace postern::host
