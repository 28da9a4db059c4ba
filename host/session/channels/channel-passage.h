#pragma once
// ChannelPassage: one channel's way through the gates of the VM's port and of the rule that allowed it. It holds a
// place at each as long as it lives, and lets the channel's pieces on as the gates do.
//
// A piece has come in when admit() is called; then it needs room at all its gates (`bytes`), all at once, so that no
// two pieces wait for each other; then its turn (`rate`, `peak`). It gives its room back when it has passed or was
// dropped. One loop.

#include <kj/one-of.h>

#include "host/session/port-limits.h"
#include "transport/relay/relay.h"

namespace postern::host {

// A rule, where this session keeps to its limits.
struct PassedRule {
  kj::String id;
  kj::Own<LimitGate> gate;
};

class ChannelPassage {
 public:
  // Or a line for a person: a limit keeps it from being opened.
  static kj::OneOf<kj::Own<ChannelPassage>, kj::String> begin(PortLimits& limits, kj::Maybe<const PassedRule&> rule);

  ChannelPassage(PortLimits& limits, kj::Own<LimitGate> port, kj::Maybe<kj::Own<LimitGate>> rule);
  ~ChannelPassage() noexcept(false);
  KJ_DISALLOW_COPY(ChannelPassage);

  // As RelayMeter: one piece at a time for each way. The passage outlives the promise.
  kj::Maybe<kj::Promise<void>> admit(RelayWay way, size_t bytes);
  // The piece that was admitted last, or that waits to be, has passed or will not.
  void leave(RelayWay way);

 private:
  class Piece final : public LimitGate::Waiter {
   public:
    explicit Piece(ChannelPassage& passage) : passage(passage) {}
    ~Piece() noexcept(false) { leave(); }
    KJ_DISALLOW_COPY(Piece);

    // True: it has its room. False: the promise says when.
    bool enter(size_t bytes);
    kj::Promise<void> whenInside();
    void leave();

    size_t bytes() const override { return size; }
    void tryAgain() override;

   private:
    ChannelPassage& passage;
    size_t size = 0;
    bool inside = false;
    kj::Maybe<LimitGate&> waitsAt;
    kj::Own<kj::PromiseFulfiller<void>> fulfiller;

    // `next`: whose queue it has just left, being the first of it.
    bool tryEnter(kj::Maybe<LimitGate&> next);
  };

  PortLimits& limits;
  LimitPlace port;
  kj::Maybe<kj::Own<LimitPlace>> rule;
  LimitGate* gates[2];
  size_t count = 1;
  Piece pieces[2] = {Piece(*this), Piece(*this)};

  kj::ArrayPtr<LimitGate* const> all() const { return kj::arrayPtr(gates, count); }
  Piece& piece(RelayWay way) { return pieces[static_cast<size_t>(way)]; }
};

}  // namespace postern::host
