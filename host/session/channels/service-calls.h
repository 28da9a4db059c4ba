#pragma once
// ServiceCalls: what VmCalls.connect and services do for one caller, within one grant. A connection is one that the
// grant has, that the limits let in, whose stream is a connected socket and to which the guest agrees; then its bytes
// are relayed. Its channel is owned here: it ends with the caller's capability, which is how a grant that is cut cuts
// it.
//
// The posternd that has granted it has to be there until the channel is open: another one knows nothing of the grant,
// could not write the channel down, and cuts it. When it has gone, nobody asks the guest.
//
// Whatever does not become a channel is told to posternd, but for what was not granted, or not by it. One loop; owned
// by the caller's VmCalls.

#include "host/control/control.capnp.h"
#include "host/local-rpc/passed-sockets.h"
#include "host/session/channels/channel-book.h"
#include "host/session/hub.h"
#include "host/session/session-control.capnp.h"

namespace postern::host {

// For the guest to have reached its target.
constexpr auto SERVICE_CALL_DEADLINE = 10 * kj::SECONDS;
// Names that a guest may have; protocol/guest.capnp.
constexpr unsigned MAX_LISTED_SERVICES = 256;
// Ends of channels that a caller has been told and has not acknowledged. The next ones he is not told.
constexpr unsigned MAX_TOLD_ENDS = 256;

class ServiceCalls final : private kj::TaskSet::ErrorHandler {
 public:
  // Of the posternd that is attached. `mirrors`: one socket for each of the grant's services, null where it has none.
  // `grant` is not kept; everything else outlives this.
  ServiceCalls(Hub& hub, ChannelBook& book, schema::Grant::Reader grant, kj::Array<kj::AutoCloseFd> mirrors,
               PassedSockets& sockets);
  ~ServiceCalls() noexcept(false);
  KJ_DISALLOW_COPY(ServiceCalls);

  using ConnectContext = capnp::CallContext<schema::VmCalls::ConnectParams, schema::VmCalls::ConnectResults>;
  using ServicesContext = capnp::CallContext<schema::VmCalls::ServicesParams, schema::VmCalls::ServicesResults>;
  using GuestCalls = postern::schema::GuestCalls::Client;

  bool isGranted(kj::StringPtr service) const { return find(service) != nullptr; }
  // Of a service that is granted. `guest`: null if none is connected, which the failure says already.
  kj::Promise<void> connect(ConnectContext context, kj::Maybe<GuestCalls> guest);
  // For a grant with any service.* call.
  kj::Promise<void> services(ServicesContext context, kj::Maybe<GuestCalls> guest);

 private:
  class Connecting;
  struct Service {
    kj::String name;
    PassedRule rule;
    kj::Maybe<MirroredChannel::Terms> mirror;
  };

  Hub& hub;
  ChannelBook& book;
  PassedSockets& sockets;  // that the caller passes
  const uint64_t grant;
  const uint64_t attachment;  // of the posternd that gave it
  kj::Own<ChannelCaller> caller;
  kj::Vector<Service> granted;
  unsigned toldEnds = 0;
  kj::TaskSet channels;

  bool hasLapsed() const { return book.posternd().currentAttachment() != attachment; }
  kj::Maybe<const Service&> find(kj::StringPtr name) const;
  kj::Promise<void> tellEnd(schema::ChannelObserver::Client observer, kj::StringPtr why);
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::host
