#pragma once
// KeptChannel: what a session process knows of a channel beside its bytes: who has asked for what, and by which rule.
// As long as the channel lives, and until posternd has heard of its end.

#include <capnp/message.h>
#include <kj/memory.h>
#include <kj/refcount.h>
#include <kj/string.h>
#include <kj/time.h>

#include "host/session/channels/traffic-counters.h"
#include "host/session/session-control.capnp.h"
#include "protocol/guest.capnp.h"

namespace postern::host {

// Who asks, shared by all channels of one grant.
class ChannelCaller final : public kj::Refcounted {
 public:
  // As large as it is, and no more: a thousand channels may be open.
  explicit ChannelCaller(postern::schema::Caller::Reader caller)
      : message(static_cast<capnp::uint>(caller.totalSize().wordCount) + 1) {
    message.setRoot(caller);
  }
  postern::schema::Caller::Reader reader() const {
    return const_cast<capnp::MallocMessageBuilder&>(message).getRoot<postern::schema::Caller>().asReader();
  }

 private:
  capnp::MallocMessageBuilder message;
};

struct KeptChannel {
  uint64_t id = 0;
  uint64_t grant = 0;                        // of a program of the host; else 0
  kj::Maybe<kj::Own<ChannelCaller>> caller;  // of a channel that comes to this VM's guest; null: it has asked
  kj::String to;                             // then: a VM, or "host"
  kj::String service;
  kj::String rule;  // empty where another session keeps to it
  kj::TimePoint opened = kj::origin<kj::TimePoint>();

  bool asked() const { return caller == nullptr; }
  void write(schema::LiveChannel::Builder out, kj::TimePoint now) const {
    out.setId(id);
    out.setAsked(asked());
    KJ_IF_MAYBE (c, caller) out.setCaller((*c)->reader());
    out.setTo(to);
    out.setService(service);
    out.setRule(rule);
    out.setOpenForMilliseconds(uint64_t((now - opened) / kj::MILLISECONDS));
  }
};

}  // namespace postern::host
