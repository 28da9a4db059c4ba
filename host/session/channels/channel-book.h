#pragma once
// ChannelBook: the channels of one VM: those that live, what has passed them, the port and each rule since this process
// began, and what posternd is told of it (channel-teller.h).
//
// Guarantees: counters are exact against the bytes that were taken; a VM has at most MAX_VM_CHANNELS channels, those
// counted whose end posternd has not heard; a channel that is cut is reset in the turn that follows, and no other one
// is. One loop; outlives the channels.

#include <kj/map.h>
#include <kj/timer.h>

#include "host/session/channels/channel-passage.h"
#include "host/session/channels/channel-teller.h"
#include "host/session/mirror.h"
#include "protocol/random.h"

namespace postern::host {

class LiveChannel;

// As many as a link has room for.
constexpr size_t MAX_VM_CHANNELS = 4096;
// Of those of one user on the host, whatever he is granted: it takes four to leave none for the guest and the others.
constexpr size_t MAX_CALLER_CHANNELS = MAX_VM_CHANNELS / 4;
// Whose counters are told; what passes others counts for the port alone. One that nothing passes makes room.
constexpr size_t MAX_TOLD_RULES = 256;
// What attach() may list: half of what a message may have (SESSION_MESSAGE_WORDS).
constexpr uint64_t MAX_LISTED_WORDS = uint64_t(1) << 18;
// For a frame that a mirror had begun when its channel ended, and for how many of them.
constexpr auto MIRROR_LINGER = 1 * kj::SECONDS;
constexpr unsigned MAX_LINGERING_MIRRORS = 64;

// Of all that passes a port, or a rule.
struct PassCounters {
  uint64_t opened = 0;
  uint64_t refused = 0;
  uint32_t active = 0;
  TrafficCounters traffic;
};

class ChannelBook final : private kj::TaskSet::ErrorHandler {
 public:
  struct Environment {
    kj::UnixEventPort& port;
    kj::Timer& timer;
    Random& random;
    const kj::Clock& clock;  // for the records of mirrors
  };

  // Everything outlives this.
  ChannelBook(const Environment& environment, PortLimits& limits);
  ~ChannelBook() noexcept(false);
  KJ_DISALLOW_COPY(ChannelBook);

  kj::UnixEventPort& eventPort() { return environment.port; }
  kj::Timer& timer() { return environment.timer; }
  PortLimits& portLimits() { return limits; }
  ChannelTeller& posternd() { return teller; }

  // Not 0, and no other channel's.
  uint64_t newId();
  bool has(uint64_t id) const { return live.find(id) != nullptr; }

  // Room for one, with its places at the gates. Or a line for a person.
  class Place;
  // `caller`: the user on the host whose it is.
  kj::OneOf<kj::Own<Place>, kj::String> begin(kj::Maybe<const PassedRule&> rule, kj::Maybe<uint32_t> caller = nullptr);
  // Counts one that was not opened. `rule`: empty if it is not known.
  void refused(kj::StringPtr rule);

  // It is open from now on, until both directions have ended, it is reset or cut, or the promise is dropped. Why it
  // ended, in a word: finished, reset, cut, link-ended.
  kj::Promise<kj::StringPtr> run(kj::Own<Place> place, KeptChannel channel, kj::Maybe<MirroredChannel::Terms> mirror,
                                 kj::Own<BulkChannel> bulk, kj::Own<RelayEnd> end);
  // The same, owned by the book.
  void keep(kj::Promise<kj::StringPtr> running) { tasks.add(running.ignoreResult()); }
  // posternd counts it among those that are open, and it was not.
  void neverOpened(KeptChannel channel, kj::StringPtr why);

  // Resets it, if there is one.
  void cut(uint64_t id);
  void cutAll();

  // What a new posternd has to know: those that live, and those of whose end none has heard. Those for which the
  // message has no room are cut: nobody could decide about them.
  void list(schema::SessionControl::AttachResults::Builder results);
  // What has passed each that lives.
  void listTraffic(schema::SessionControl::ChannelTrafficResults::Builder results) const;

  size_t openChannels() const { return live.size(); }
  // None is open or about to be, and posternd has heard of every end.
  bool isSettled() const { return places == 0 && teller.untoldEnds() == 0; }

 private:
  friend class LiveChannel;
  friend class Place;

  const Environment environment;
  PortLimits& limits;
  kj::HashMap<uint64_t, LiveChannel*> live;
  size_t places = 0;
  kj::HashMap<uint32_t, size_t> placesByCaller;
  PassCounters port;
  kj::HashMap<kj::String, kj::Own<PassCounters>> rules;
  uint64_t mirrorDropped = 0;
  unsigned lingering = 0;
  ChannelTeller teller;
  kj::TaskSet tasks;

  kj::Maybe<PassCounters&> countersOf(kj::StringPtr rule);
  void write(ChannelTeller::Traffic out);
  void linger(kj::Own<Mirror> mirror);
  void taskFailed(kj::Exception&& exception) override;
};

class ChannelBook::Place {
 public:
  Place(ChannelBook& book, kj::Own<ChannelPassage> passage, kj::StringPtr rule, kj::Maybe<uint32_t> caller);
  ~Place() noexcept(false);
  KJ_DISALLOW_COPY(Place);

  kj::StringPtr rule() const { return ruleId; }
  ChannelPassage& passage() { return *way; }

 private:
  ChannelBook& book;
  const kj::String ruleId;  // empty: none here
  const kj::Maybe<uint32_t> caller;
  kj::Own<ChannelPassage> way;
};

}  // namespace postern::host
