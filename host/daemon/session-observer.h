#pragma once
// What a session process calls: its claims, checked and in their turn, for SessionClient's handler. Calls that come too
// late, of a process whose connection is over, reach nobody.

#include "host/daemon/session-client.h"

namespace postern::host {

class SessionClient::Observer final : public schema::SessionObserver::Server {
 public:
  explicit Observer(kj::Own<Self> self) : self(kj::mv(self)) {}

  kj::Promise<void> stateChanged(StateChangedContext context) override;
  kj::Promise<void> event(EventContext context) override;
  kj::Promise<void> operation(OperationContext context) override;
  kj::Promise<void> pings(PingsContext context) override;

  kj::Promise<void> connect(ConnectContext context) override;
  kj::Promise<void> channelOpened(ChannelOpenedContext context) override;
  kj::Promise<void> channelRefused(ChannelRefusedContext context) override;
  kj::Promise<void> channelClosed(ChannelClosedContext context) override;
  kj::Promise<void> traffic(TrafficContext context) override;

 private:
  kj::Own<Self> self;

  // `tell` gets the handler, when the turn of what is told has come: of what it bounds together (`bucket`).
  template <typename Tell>
  kj::Promise<void> inTurn(CallBucket SessionClient::*bucket, Tell&& tell);
};

}  // namespace postern::host
