#pragma once
// One consumer. For Consumers.

#include "guest-agent/services/consumers.h"
#include "transport/relay/relay.h"

namespace postern::guest {

class Consumers::Consumer final : private kj::TaskSet::ErrorHandler {
 public:
  // `briefing` has a socket.
  Consumer(Consumers& consumers, ConsumerBriefing briefing);
  ~Consumer() noexcept(false);
  KJ_DISALLOW_COPY(Consumer);

  bool isSame(const ConsumerBriefing& briefing) const { return from == briefing.from && service == briefing.service; }
  // Resets its channels.
  void endChannels();
  // The same, and those to come are of another service, on the same socket.
  void become(kj::String from, kj::String service);
  size_t channels() const { return count; }
  size_t questions() const { return asking; }

 private:
  class Place;

  Consumers& all;
  const kj::String listen;
  kj::String from;
  kj::String service;
  kj::AutoCloseFd socket;
  kj::UnixEventPort::FdObserver observer;
  size_t count = 0;
  size_t asking = 0;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> roomWaiter;
  kj::Own<kj::TaskSet> tasks;  // of the channels
  kj::Promise<void> accepting;

  kj::Own<kj::TaskSet> newTasks() { return kj::heap<kj::TaskSet>(static_cast<kj::TaskSet::ErrorHandler&>(*this)); }
  kj::Timer& timer() { return all.port.getTimer(); }
  kj::Promise<void> accept();
  kj::Promise<void> acceptAfter(kj::Duration pause);
  kj::Promise<void> acceptAfterFailure(int error);
  kj::Promise<void> acceptWhenRoom();
  void take(kj::AutoCloseFd connection);
  kj::Promise<void> connect(kj::Own<RelayEnd> end, BulkMux::Opened opened, schema::Host::Client host);
  kj::Promise<bool> isReached(RelayEnd& end, const BulkOffer& offer, schema::Host::Client host);
  kj::String describe() const;
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::guest
