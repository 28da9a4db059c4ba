#pragma once
// LiveChannel: one open channel: its relay, which it meters: each piece is admitted by the channel's passage, counted
// for the channel, its rule and the port, and mirrored. In the book from its construction; its end is told when it is
// destroyed, whatever ended it. One loop.

#include "host/session/channels/channel-book.h"

namespace postern::host {

class LiveChannel final : private RelayMeter {
 public:
  LiveChannel(ChannelBook& book, kj::Own<ChannelBook::Place> place, KeptChannel channel,
              kj::Maybe<MirroredChannel::Terms> mirror);
  ~LiveChannel() noexcept(false);
  KJ_DISALLOW_COPY(LiveChannel);

  // Once, until it is over: why, as posternd is told.
  kj::Promise<kj::StringPtr> run(kj::Own<BulkChannel> bulk, kj::Own<RelayEnd> end);
  void cut();

  const KeptChannel& kept() const { return channel; }
  // Until now.
  const TrafficCounters& passedTraffic() const { return traffic; }

 private:
  ChannelBook& book;
  kj::Own<ChannelBook::Place> place;
  KeptChannel channel;
  kj::Maybe<MirroredChannel> mirror;
  kj::Maybe<PassCounters&> rule;
  TrafficCounters traffic;
  kj::StringPtr why = "reset"_kj;  // also of one whose owner let it go
  kj::PromiseFulfillerPair<RelayOutcome> cutting = kj::newPromiseAndFulfiller<RelayOutcome>();
  kj::Own<Relay> relay;

  TrafficWay towards(RelayWay way) const;
  void ended(RelayOutcome outcome);
  void waited(kj::Duration time);

  kj::Maybe<kj::Promise<void>> admit(RelayWay way, size_t bytes) override;
  void passed(RelayWay way, kj::ArrayPtr<const kj::byte> bytes) override;
  void dropped(RelayWay way, size_t bytes) override;
};

}  // namespace postern::host
