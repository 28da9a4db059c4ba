// Somebody on the way changes bytes: every byte of every handshake frame and of every kind of record, in both
// directions. Never do both ends have a session that works, and never is a changed byte delivered.

#include <doctest/doctest.h>

#include <string>

#include "protocol/crc32c.h"
#include "protocol/limits.h"
#include "protocol/rpc-system.h"
#include "protocol/wire-int.h"
#include "tests/support/echo.h"
#include "tests/support/sanitized.h"
#include "tests/support/session-lab.h"

namespace postern {
namespace {

using test::Echo;
using test::FakeDirection;
using test::FakePipe;
using test::GuestOutcome;
using test::HostOutcome;
using test::SAMPLE_STEP;
using test::SessionLab;

enum class Pattern { KK, XX };

constexpr uint64_t HELLO_END = HELLO_FRAME_BYTES;

// Handshake --------------------------------------------------------------------------------------------------------

// Both ends' way to a session, as far as it goes, and what each has in the end.
struct Attempt {
  explicit Attempt(Pattern pattern) : pattern(pattern) {
    if (pattern == Pattern::XX) lab.useEnrolment();
  }

  SessionLab lab;
  const Pattern pattern;
  kj::Own<Session> guest;
  kj::Own<Session> host;
  kj::Maybe<EstablishFailure> hostFailure;
  bool guestRefused = false;
  bool hostRefused = false;

  FakeDirection& toward(Role role) { return role == Role::HOST ? lab.wire.toHost : lab.wire.toGuest; }

  void start() {
    guestWay = lab.startGuest(lab.wire.guestEnd())
                   .then([this](GuestOutcome outcome) {
                     guestRefused = !outcome.is<GuestSession>();
                     if (!guestRefused) guest = kj::mv(outcome.get<GuestSession>().session);
                   })
                   .eagerlyEvaluate(nullptr);
    hostWay = lab.startHost(lab.wire.hostEnd())
                  .then([this](HostOutcome outcome) {
                    hostRefused = !outcome.is<kj::Own<IncomingSession>>();
                    if (outcome.is<EstablishFailure>()) hostFailure = outcome.get<EstablishFailure>();
                    if (hostRefused) return;
                    auto& incoming = *outcome.get<kj::Own<IncomingSession>>();
                    Acceptance acceptance;
                    if (incoming.isEnrolment()) acceptance.linkSecret = LinkSecret::generate(lab.random);
                    host = incoming.accept(acceptance);
                  })
                  .eagerlyEvaluate(nullptr);
    lab.settle();
  }

  void finish() {
    if (guest.get() != nullptr && host.get() != nullptr && pattern == Pattern::XX) {
      committing = guest->commit().then([this]() { committed = true; }).eagerlyEvaluate([](kj::Exception&&) {});
      confirming = host->whenCommit().then([this]() { host->confirmCommit(); }).eagerlyEvaluate([](kj::Exception&&) {});
      lab.settle();
    }
    pingBoth();
    lab.settle();
    pongs = answered;
    if (answered < 2) {
      lab.advance(limits::HANDSHAKE_DEADLINE);  // of the handshake, and of a ping
      // A guest whose COMMIT is not answered gives up; that deadline is its owner's.
      if (pattern == Pattern::XX && !committed) guest = nullptr;
      lab.settle();
    }
  }

  bool works() const { return pongs == 2; }
  // Whether an end still takes part.
  bool isAlive(Role role) const {
    auto& session = role == Role::GUEST ? guest : host;
    return session.get() != nullptr && !session->isOver();
  }

 private:
  kj::Promise<void> guestWay = nullptr;
  kj::Promise<void> hostWay = nullptr;
  kj::Promise<void> committing = nullptr;
  kj::Promise<void> confirming = nullptr;
  kj::Vector<kj::Promise<void>> pings;
  bool committed = false;
  int answered = 0;
  int pongs = 0;

  void ping(kj::Own<Session>& session) {
    if (session.get() == nullptr || session->isOver()) return;
    pings.add(session->ping().then([this](auto) { ++answered; }).eagerlyEvaluate([](kj::Exception&&) {}));
  }
  void pingBoth() {
    if (pattern == Pattern::KK || committed) ping(guest);
    // The host is past the commit as soon as it has sent COMMITTED.
    if (pattern == Pattern::KK || host.get() == nullptr || committed) return ping(host);
    KJ_IF_MAYBE (refused, kj::runCatchingExceptions([&]() { ping(host); })) {
      (void)refused;
    }
  }
};

struct Lengths {
  uint64_t toHost;
  uint64_t toGuest;
  uint64_t operator()(Role toward) const { return toward == Role::HOST ? toHost : toGuest; }
};

// Bytes of an untouched handshake, commit included, without the pings behind it.
Lengths handshakeLengths(Pattern pattern) {
  Attempt attempt(pattern);
  attempt.start();
  REQUIRE(attempt.guest.get() != nullptr);
  REQUIRE(attempt.host.get() != nullptr);
  if (pattern == Pattern::XX) {
    auto committed = attempt.guest->commit();
    attempt.host->whenCommit().wait(attempt.lab.waitScope);
    attempt.host->confirmCommit();
    committed.wait(attempt.lab.waitScope);
  }
  return {attempt.lab.wire.toHost.written(), attempt.lab.wire.toGuest.written()};
}

TEST_CASE("an untouched handshake leads to sessions that work at both ends") {
  for (auto pattern : {Pattern::KK, Pattern::XX}) {
    Attempt attempt(pattern);
    attempt.start();
    attempt.finish();
    CHECK(attempt.works());
  }
}

// What an end may have sent when it refuses a byte that lies at `place` of what it receives: its messages up to the one
// that was changed, and nothing behind it.
uint64_t mostSent(Pattern pattern, Role refuser, uint64_t place) {
  constexpr uint64_t SHORT_MESSAGE = FRAME_HEADER_BYTES + 48;        // e and a tag
  constexpr uint64_t XX_SECOND = FRAME_HEADER_BYTES + 32 + 48 + 16;  // e, s, a tag
  uint64_t firstAnswer = HELLO_END + (refuser == Role::HOST && pattern == Pattern::XX ? XX_SECOND : SHORT_MESSAGE);
  if (place < HELLO_END) return HELLO_END;
  uint64_t received = HELLO_END + (refuser == Role::GUEST && pattern == Pattern::XX ? XX_SECOND : SHORT_MESSAGE);
  // The guest sends its first message by itself.
  if (refuser == Role::GUEST) return place < received ? firstAnswer : ~uint64_t(0);
  return place < received ? HELLO_END : firstAnswer;
}

// Whether the byte is of the host's ACCEPT or of what comes after it: then the sender is authenticated.
bool isAuthenticated(Pattern pattern, Role toward, uint64_t place) {
  if (toward == Role::GUEST) return place >= HELLO_END + FRAME_HEADER_BYTES + (pattern == Pattern::XX ? 96u : 48u);
  uint64_t confirm = HELLO_END + FRAME_HEADER_BYTES + 48 + (pattern == Pattern::XX ? FRAME_HEADER_BYTES + 64 : 0);
  return place >= confirm + FRAME_HEADER_BYTES + TAG_BYTES + RECORD_HEADER_BYTES + 88;  // behind CONFIRM
}

void checkFlip(Pattern pattern, Role toward, uint64_t place, kj::byte mask) {
  CAPTURE(int(pattern));
  CAPTURE(int(toward));
  CAPTURE(place);
  CAPTURE(int(mask));
  Attempt attempt(pattern);
  auto& direction = attempt.toward(toward);
  direction.flipAt = place;
  direction.flipMask = mask;
  attempt.start();
  attempt.finish();
  bool nothingWorks = !attempt.works() && !attempt.isAlive(Role::GUEST) && !attempt.isAlive(Role::HOST);
  CHECK(nothingWorks);
  bool wasFlipped = direction.written() > place;
  CHECK(wasFlipped);
  if (isAuthenticated(pattern, toward, place)) return;
  bool refused = toward == Role::HOST ? attempt.hostRefused : attempt.guestRefused;
  CHECK(refused);
  auto other = toward == Role::HOST ? Role::GUEST : Role::HOST;
  bool silent = attempt.toward(other).written() <= mostSent(pattern, toward, place);
  CHECK(silent);
}

TEST_CASE(
    "every changed byte of every handshake frame is refused by both ends, and the refusing end says nothing more") {
  for (auto pattern : {Pattern::KK, Pattern::XX}) {
    auto lengths = handshakeLengths(pattern);
    for (auto toward : {Role::HOST, Role::GUEST}) {
      for (uint64_t place = 0; place < lengths(toward); place += SAMPLE_STEP) {
        checkFlip(pattern, toward, place, kj::byte(1u << (place % 8)));
        checkFlip(pattern, toward, place, 0xff);
      }
    }
  }
}

// Changes byte `place` of a HELLO and mends the checksum, as an attacker would.
void spoilHello(kj::ArrayPtr<kj::byte> frame, size_t place, kj::byte mask) {
  auto hello = frame.slice(FRAME_HEADER_BYTES, HELLO_FRAME_BYTES);
  hello[place] = kj::byte(hello[place] ^ mask);
  putLittleEndian<uint32_t>(crc32c(hello.slice(0, 108)), hello.begin() + 108);
}

TEST_CASE("a changed HELLO whose checksum was mended is refused by both ends") {
  for (auto pattern : {Pattern::KK, Pattern::XX}) {
    for (auto toward : {Role::HOST, Role::GUEST}) {
      for (size_t place = 0; place < 108; place += SAMPLE_STEP) {
        for (auto mask : {kj::byte(1u << (place % 8)), kj::byte(0xff)}) {
          CAPTURE(int(toward));
          CAPTURE(place);
          CAPTURE(int(mask));
          Attempt attempt(pattern);
          auto& direction = attempt.toward(toward);
          direction.setStalled(true);
          attempt.start();
          auto bytes = direction.take();
          REQUIRE(bytes.size() >= HELLO_FRAME_BYTES);
          spoilHello(bytes, place, mask);
          direction.inject(bytes);
          direction.setStalled(false);
          attempt.lab.settle();
          attempt.finish();
          CHECK(!attempt.works());
          CHECK(!attempt.isAlive(Role::GUEST));
          CHECK(!attempt.isAlive(Role::HOST));
          // Nobody got as far as a session.
          CHECK(attempt.guest.get() == nullptr);
          CHECK(attempt.host.get() == nullptr);
        }
      }
    }
  }
}

// Records ----------------------------------------------------------------------------------------------------------

constexpr kj::StringPtr FROM_GUEST = "what the guest says to the host"_kj;
constexpr kj::StringPtr FROM_HOST = "what the host says to the guest"_kj;

// Answers what it is sent, and looks at every byte of it.
class WatchfulServer final : public Echo::Server {
 public:
  explicit WatchfulServer(kj::StringPtr expected) : expected(expected) {}

 protected:
  kj::Promise<void> echo(EchoContext context) override {
    auto data = context.getParams().getData();
    bool asSent = data == expected.asBytes();
    CHECK(asSent);
    context.getResults().setData(data);
    return kj::READY_NOW;
  }

 private:
  kj::StringPtr expected;
};

// Two sessions that exchange every kind of record. With `flipAt` set in a direction, parts of it fail; what does not
// fail is checked.
class Conversation {
 public:
  explicit Conversation(Role closer) : closer(closer) {}

  SessionLab lab;

  FakeDirection& toward(Role role) { return role == Role::HOST ? lab.wire.toHost : lab.wire.toGuest; }
  Session& at(Role role) { return sessions.at(role); }
  int answers = 0;

  void connect() { sessions = lab.connectWithoutHandshake(); }

  void talk() {
    guestRpc = kj::heap<RpcConnection>(at(Role::GUEST), Role::GUEST, kj::heap<WatchfulServer>(FROM_HOST),
                                       [](kj::StringPtr) {});
    hostRpc =
        kj::heap<RpcConnection>(at(Role::HOST), Role::HOST, kj::heap<WatchfulServer>(FROM_GUEST), [](kj::StringPtr) {});
    call(*guestRpc, FROM_GUEST);
    call(*hostRpc, FROM_HOST);
    lab.settle();
    exchangeBulk();
    lab.settle();
    pingBoth();
    // Behind ten minutes each end's next record is a REKEY.
    lab.advance(limits::REKEY_AFTER);
    pingBoth();
    call(*guestRpc, FROM_GUEST);
    lab.settle();
    pingBoth();
  }

  void close() {
    closing = at(closer).close(CloseCode::GOODBYE).eagerlyEvaluate([](kj::Exception&&) {});
    lab.settle();
  }

  void pingBoth() {
    for (auto role : {Role::GUEST, Role::HOST}) {
      if (at(role).isOver()) continue;
      pending.add(at(role).ping().then([this](auto) { ++answers; }).eagerlyEvaluate([](kj::Exception&&) {}));
    }
    lab.settle();
  }

 private:
  const Role closer;
  SessionLab::Sessions sessions;
  kj::Own<BulkChannel> near;
  kj::Own<BulkChannel> far;
  kj::Own<RpcConnection> guestRpc;
  kj::Own<RpcConnection> hostRpc;
  kj::Vector<kj::Promise<void>> pending;
  kj::Promise<void> closing = nullptr;
  size_t farGot = 0;
  size_t nearGot = 0;

  static constexpr size_t BULK_BYTES = 150;
  static kj::byte bulkByte(size_t i) { return kj::byte(i * 7 + 1); }

  void call(RpcConnection& from, kj::StringPtr text) {
    auto request = from.peer().castAs<Echo>().echoRequest();
    request.setData(text.asBytes());
    pending.add(request.send()
                    .then([this, text](auto response) {
                      bool asSent = response.getData() == text.asBytes();
                      CHECK(asSent);
                      ++answers;
                    })
                    .eagerlyEvaluate([](kj::Exception&&) {}));
  }

  void exchangeBulk() {
    auto opened = KJ_ASSERT_NONNULL(at(Role::GUEST).bulk().open());
    auto accepted = at(Role::HOST).bulk().accept(opened.offer);
    near = kj::mv(opened.channel);
    far = kj::mv(accepted.get<kj::Own<BulkChannel>>());
    pending.add(send(*near));
    pending.add(send(*far));
    pending.add(receive(*far, farGot).eagerlyEvaluate(nullptr));
    pending.add(receive(*near, nearGot).eagerlyEvaluate(nullptr));
  }

  kj::Promise<void> send(BulkChannel& channel) {
    auto bytes = kj::heapArray<kj::byte>(BULK_BYTES);
    for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = bulkByte(i);
    auto written = channel.write(bytes);
    return written.attach(kj::mv(bytes))
        .then([&channel](bool all) {
          if (all) channel.finish();
        })
        .eagerlyEvaluate(nullptr);
  }

  kj::Promise<void> receive(BulkChannel& channel, size_t& got) {
    return channel.read().then([this, &channel, &got](kj::OneOf<BulkChunk, BulkEnd> next) -> kj::Promise<void> {
      if (next.is<BulkEnd>()) {
        bool isWhole = got == BULK_BYTES || next.get<BulkEnd>() != BulkEnd::FINISHED;
        CHECK(isWhole);
        ++answers;
        return kj::READY_NOW;
      }
      bool asSent = true;
      for (auto b : next.get<BulkChunk>().bytes()) asSent = asSent && b == bulkByte(got++);
      CHECK(asSent);
      return receive(channel, got);
    });
  }
};

constexpr int ALL_ANSWERS = 3 + 2 + 2 + 2 + 2;  // calls, bulk ends, three times two pings

// Whether the reason is one that an unauthenticated change can lead to, at the end that received it.
bool isRefusal(EndReason reason) {
  return reason == EndReason::BAD_FRAME || reason == EndReason::BAD_RECORD || reason == EndReason::PING_TIMEOUT ||
         reason == EndReason::LINK_ENDED;
}

TEST_CASE("every changed byte of records of every type ends the session at both ends, and is never delivered") {
  for (auto closer : {Role::GUEST, Role::HOST}) {
    uint64_t begin[2], closeBegin[2], end[2];
    {
      Conversation untouched(closer);
      untouched.connect();
      for (auto role : {Role::GUEST, Role::HOST}) begin[role == Role::HOST] = untouched.toward(role).written();
      untouched.talk();
      CHECK(untouched.answers == ALL_ANSWERS);
      for (auto role : {Role::GUEST, Role::HOST}) closeBegin[role == Role::HOST] = untouched.toward(role).written();
      untouched.close();
      for (auto role : {Role::GUEST, Role::HOST}) end[role == Role::HOST] = untouched.toward(role).written();
      auto other = closer == Role::GUEST ? Role::HOST : Role::GUEST;
      CHECK(untouched.at(other).onEnd().wait(untouched.lab.waitScope).reason == EndReason::CLOSED_BY_PEER);
    }
    for (auto toward : {Role::HOST, Role::GUEST}) {
      bool side = toward == Role::HOST;
      // What lies before the CLOSE is the same whoever closes: once is enough.
      uint64_t from = closer == Role::GUEST ? begin[side] : closeBegin[side];
      for (uint64_t place = from; place < end[side]; place += SAMPLE_STEP) {
        for (auto mask : {kj::byte(1u << (place % 8)), kj::byte(0xff)}) {
          CAPTURE(int(toward));
          CAPTURE(place);
          CAPTURE(int(mask));
          Conversation conversation(closer);
          conversation.connect();
          auto& direction = conversation.toward(toward);
          direction.flipAt = place;
          direction.flipMask = mask;
          conversation.talk();
          if (place >= closeBegin[side]) {
            CHECK(conversation.answers == ALL_ANSWERS);
            conversation.close();
          }
          bool wasFlipped = direction.written() > place;
          CHECK(wasFlipped);
          // A frame made longer is found by the next record, or by the ping that is not answered.
          conversation.pingBoth();
          conversation.lab.advance(limits::PING_DEADLINE);
          bool bothEnded = conversation.at(Role::GUEST).isOver() && conversation.at(Role::HOST).isOver();
          REQUIRE(bothEnded);
          auto how = conversation.at(toward).onEnd().wait(conversation.lab.waitScope);
          bool refused = isRefusal(how.reason);
          std::string reason = describe(how).cStr();
          CAPTURE(reason);
          CHECK(refused);
        }
      }
    }
  }
}

}  // namespace
}  // namespace postern
