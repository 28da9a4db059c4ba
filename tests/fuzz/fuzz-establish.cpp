// Two honest ends on their way to a session, and somebody on the wire between them who changes, drops, invents and
// delays bytes. The host has a guest only if both ends got exactly what the other wrote; whatever happens, both ends'
// promises are resolved when the deadline is over, and no block is left.
//
// input = u8 flags (1 enrolment, 2 the host refuses the guest, 4 pipes that take 40 bytes at a time) | steps, each u8
// kind and what that needs:
//   0 u8 n: n bytes more reach the host (255: all)        1 likewise the guest
//   2 u8 place, u8 mask: a byte to the host is changed    3 likewise to the guest
//   4 u8 n, n bytes: invented, to the host                5 likewise to the guest
//   6 u8 n: the next n bytes to the host are lost         7 likewise to the guest
//   8 u8 n: n * 20 ms pass                                9 the stream ends at the host   10 at the guest

#include <string.h>

#include <vector>

#include "protocol/limits.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/verdict.h"
#include "tests/support/session-lab.h"

namespace postern::fuzz {
namespace {

// One direction through the hands of the one in between.
class Tampered {
 public:
  Tampered(test::FakeDirection& from, test::FakeDirection& to) : from(from), to(to) {}

  void collect() {
    auto more = from.take();
    written.insert(written.end(), more.begin(), more.end());
  }
  void forward(size_t count) { deliver(takeWritten(count)); }
  void change(size_t place, kj::byte mask) {
    auto bytes = copyOf(takeWritten(place + 1));
    if (bytes.size() > 0) bytes.back() = static_cast<kj::byte>(bytes.back() ^ mask);
    deliver(bytes);
  }
  void deliver(kj::ArrayPtr<const kj::byte> bytes) {
    delivered.insert(delivered.end(), bytes.begin(), bytes.end());
    to.inject(bytes);
  }
  void lose(size_t count) { takeWritten(count); }
  void end() { to.end(); }

  // All that was written has arrived, in order and unchanged; more may have come behind it.
  bool isHonest() const {
    return delivered.size() >= written.size() && std::equal(written.begin(), written.end(), delivered.begin());
  }

 private:
  test::FakeDirection& from;
  test::FakeDirection& to;
  std::vector<kj::byte> written;
  std::vector<kj::byte> delivered;
  size_t taken = 0;

  kj::ArrayPtr<const kj::byte> takeWritten(size_t count) {
    size_t n = std::min(count, written.size() - taken);
    taken += n;
    return kj::arrayPtr(written.data() + (taken - n), n);
  }
};

enum class Phase { HELLO, ESTABLISHING, FAILED, DONE };

class Attempt {
 public:
  explicit Attempt(uint8_t flags)
      : refusing((flags & 2) != 0), toHost(atGuest.toHost, atHost.toHost), toGuest(atHost.toGuest, atGuest.toGuest) {
    if ((flags & 1) != 0) lab.useEnrolment();
    if ((flags & 4) != 0) atGuest.toHost.capacity = atHost.toGuest.capacity = 40;
    describeCredentials(lab.guestCredentials, lab.guestHello);
    lab.guestHello.nonce.fill(1);
    lab.hostHello.nonce.fill(2);
    guestTask = startGuest().eagerlyEvaluate(unexpected);
    hostTask = startHost().eagerlyEvaluate(unexpected);
    settle();
  }

  void run(Input& input) {
    while (!input.isEmpty()) {
      step(input);
      settle();
    }
    lab.advance(limits::HANDSHAKE_DEADLINE);
    settle();
    expect(hostPhase != Phase::ESTABLISHING, "the host's attempt is over when its deadline is");
    expect(guestPhase != Phase::ESTABLISHING, "the guest's attempt is over when its deadline is");
    guestTask = kj::READY_NOW;
    hostTask = kj::READY_NOW;
    guestSession = nullptr;
    hostSession = nullptr;
    expect(lab.pool.blocksOut() == 0, "no block is left");
  }

 private:
  const bool refusing;
  test::SessionLab lab;
  test::FakeWire atGuest;
  test::FakeWire atHost;
  Tampered toHost;
  Tampered toGuest;
  Phase guestPhase = Phase::HELLO;
  Phase hostPhase = Phase::HELLO;
  kj::Own<Session> guestSession;
  kj::Own<Session> hostSession;
  kj::Promise<void> guestTask = nullptr;
  kj::Promise<void> hostTask = nullptr;
  kj::Promise<void> refusal = kj::READY_NOW;

  static void unexpected(kj::Exception&& exception) {
    expect(false, kj::str("establishing never throws: ", exception).cStr());
  }

  kj::Promise<void> startHost() {
    return openStreamLink(atHost.hostEnd(), lab.hostHello, lab.scratch)
        .then([this](kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd> link) -> kj::Promise<void> {
          hostPhase = link.is<kj::Own<FrameLink>>() ? Phase::ESTABLISHING : Phase::FAILED;
          if (hostPhase == Phase::FAILED) return kj::READY_NOW;
          auto deadline = lab.timer.now() + limits::HANDSHAKE_DEADLINE;
          return establishAsHost(kj::mv(link.get<kj::Own<FrameLink>>()), lab.keyring, deadline, lab.environment)
              .then([this](kj::OneOf<kj::Own<IncomingSession>, EstablishFailure> result) {
                hostIsThere(kj::mv(result));
              });
        });
  }

  void hostIsThere(kj::OneOf<kj::Own<IncomingSession>, EstablishFailure> result) {
    hostPhase = result.is<EstablishFailure>() ? Phase::FAILED : Phase::DONE;
    if (hostPhase == Phase::FAILED) {
      expect(describe(result.get<EstablishFailure>()).size() > 0, "every failure has a text");
      return;
    }
    toHost.collect();
    toGuest.collect();
    expect(toHost.isHonest(), "a host has a guest only if it got what the guest wrote");
    expect(toGuest.isHonest(), "a host has a guest only if the guest got what the host wrote");
    auto& incoming = *result.get<kj::Own<IncomingSession>>();
    if (refusing) {
      refusal = incoming.refuse(CloseCode::POLICY).eagerlyEvaluate(unexpected);
      return;
    }
    Acceptance acceptance;
    if (incoming.isEnrolment()) acceptance.linkSecret = LinkSecret::generate(lab.random);
    hostSession = incoming.accept(acceptance);
  }

  kj::Promise<void> startGuest() {
    return openStreamLink(atGuest.guestEnd(), lab.guestHello, lab.scratch)
        .then([this](kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd> link) -> kj::Promise<void> {
          guestPhase = link.is<kj::Own<FrameLink>>() ? Phase::ESTABLISHING : Phase::FAILED;
          if (guestPhase == Phase::FAILED) return kj::READY_NOW;
          auto deadline = lab.timer.now() + limits::HANDSHAKE_DEADLINE;
          return establishAsGuest(kj::mv(link.get<kj::Own<FrameLink>>()), lab.guestCredentials, lab.confirmation,
                                  deadline, lab.environment)
              .then([this](kj::OneOf<GuestSession, EstablishFailure> result) { guestIsThere(kj::mv(result)); });
        });
  }

  void guestIsThere(kj::OneOf<GuestSession, EstablishFailure> result) {
    guestPhase = result.is<EstablishFailure>() ? Phase::FAILED : Phase::DONE;
    if (guestPhase == Phase::FAILED) {
      expect(describe(result.get<EstablishFailure>()).size() > 0, "every failure has a text");
      return;
    }
    expect(hostPhase == Phase::DONE && !refusing, "a guest has a session only if the host has accepted");
    toGuest.collect();
    expect(toGuest.isHonest(), "a guest has a session only if it got what the host wrote");
    guestSession = kj::mv(result.get<GuestSession>().session);
  }

  void settle() {
    do {
      lab.settle();
      toHost.collect();
      toGuest.collect();
      lab.settle();
    } while (atGuest.toHost.lying() > 0 || atHost.toGuest.lying() > 0);
  }

  void step(Input& input) {
    uint8_t kind = input.u8() % 11;
    if (kind >= 9) return (kind == 9 ? toHost : toGuest).end();
    uint8_t number = input.u8();
    if (kind == 8) return lab.advance(number * 20 * kj::MILLISECONDS);
    auto& direction = kind % 2 == 0 ? toHost : toGuest;
    switch (kind / 2) {
      case 0:
        return direction.forward(number == 255 ? size_t(kj::maxValue) : number);
      case 1:
        return direction.change(number, input.u8());
      case 2:
        return direction.deliver(input.take(number));
      default:
        return direction.lose(number);
    }
  }
};

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postern::fuzz::NoFailedAssertions noFailedAssertions;
  postern::fuzz::Input input(data, size);
  postern::fuzz::Attempt attempt(input.u8());
  attempt.run(input);
  return 0;
}
