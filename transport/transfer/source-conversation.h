#pragma once
// SourceConversation: what a source opener says to its mover and hears from it, in the order of a transfer
// (BackwardCheck). It never waits for the mover while the mover waits for it: what has come is taken while a packet
// does not go out.

#include "protocol/transfer/backward-check.h"
#include "protocol/transfer/opener-message.h"
#include "transport/transfer/opener-socket.h"
#include "transport/transfer/source-opener.h"

namespace postern::transfer {

class SourceConversation {
 public:
  // `shown` makes of a path that the destination told the one that the caller knows.
  SourceConversation(kj::AutoCloseFd mover, SourceListener& listener, kj::Function<kj::String(kj::StringPtr)> shown);
  KJ_DISALLOW_COPY(SourceConversation);

  // For a long count: whether the mover is still there.
  bool goesOn() { return takeAll(); }
  // Totals go out; null: the destination is ready.
  kj::Maybe<OpenerEnd> announce(const Totals& totals);
  // False: it is over, and end() says how.
  [[nodiscard]] bool put(const Forward& message, int descriptor = -1);

  // An inlined entry, whose content is read to where it is sent from. Its hash, where it has one, may still be written
  // until putInlined(). Not sent unless that is called, before anything else is.
  struct Inlined {
    kj::ArrayPtr<kj::byte> content;
    kj::ArrayPtr<kj::byte> hash;
  };
  Inlined beginInlined(const Forward& entry, size_t contentBytes);
  [[nodiscard]] bool putInlined(kj::ArrayPtr<const kj::byte> content);

  // Everything was sent: waits for the destination's summary.
  OpenerEnd finish();
  OpenerEnd end();

 private:
  // Between two looks at what has come.
  static constexpr unsigned PUTS_PER_LOOK = 32;

  OpenerSocket socket;
  SourceListener& listener;
  kj::Function<kj::String(kj::StringPtr)> shown;
  BackwardCheck check;
  FrameBuilder frame;
  unsigned putsUntilLook = PUTS_PER_LOOK;
  kj::Maybe<OpenerEnd> ended;

  // False: it is over.
  bool takeAll();
  bool take(kj::Maybe<kj::OneOf<FrameView*, FrameError, MoverGone>> next);
  bool hear(Backward&& message);
  bool flush();
  bool cutOff();
  bool afterPut(bool done);
  bool over(OpenerEnd&& end);
};

Problem moverGone();
Problem brokenRule(FrameError error);

}  // namespace postern::transfer
