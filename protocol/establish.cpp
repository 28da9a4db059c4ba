#include "protocol/establish.h"

#include <kj/debug.h>
#include <sodium.h>
#include <string.h>

#include "protocol/confirmation.h"
#include "protocol/limits.h"

namespace postern {

namespace {

using Bytes = kj::ArrayPtr<const kj::byte>;

kj::Array<kj::byte> handshakeFrame(const LinkTag& tag, Bytes body) {
  auto frame = kj::heapArray<kj::byte>(FRAME_HEADER_BYTES + body.size());
  writeFrameHeader({static_cast<uint16_t>(body.size()), FrameKind::HANDSHAKE, tag}, frame);
  memcpy(frame.begin() + FRAME_HEADER_BYTES, body.begin(), body.size());
  return frame;
}

// The frame of a record; `data` is wiped from the copy by being encrypted there.
kj::Array<kj::byte> recordFrame(RecordSealer& sealer, RecordType type, Bytes data) {
  auto record = smallRecord({type}, data);
  auto size = sealer.seal(record.header, record.buffer, record.dataBytes).size();
  KJ_ASSERT(size == record.buffer.size());
  return kj::mv(record.buffer);
}

// Writes frames in order, waiting as the pipe demands; in a handshake it nearly never has to.
class FrameWriter {
 public:
  explicit FrameWriter(FrameLink& link) : link(link) {}

  // False when the link has ended.
  kj::Promise<bool> write(kj::Array<kj::byte> frame) {
    pending = kj::mv(frame);
    sent = 0;
    return continueWriting();
  }

 private:
  FrameLink& link;
  kj::Array<kj::byte> pending;
  size_t sent = 0;

  kj::Promise<bool> continueWriting() {
    while (sent < pending.size()) {
      Bytes rest = pending.slice(sent, pending.size());
      auto result = link.write(kj::arrayPtr(&rest, 1));
      if (result.state == PipeState::ENDED) return false;
      if (result.state != PipeState::OPEN || result.bytes == 0) {
        return link.whenWritable().then([this]() { return continueWriting(); });
      }
      sent += result.bytes;
    }
    pending = nullptr;
    return true;
  }
};

// What both ends' way has in common: messages by turns, then the first record. `Outcome` is what the way leads to.
template <typename Outcome>
class Establisher {
 public:
  using Result = kj::OneOf<Outcome, EstablishFailure>;

  virtual ~Establisher() noexcept(false) {}

  // Owns `self` (and with it the link) until it is resolved.
  // T7, T40
  static kj::Promise<Result> run(kj::Own<Establisher> self, kj::TimePoint deadline) {
    auto& timer = self->environment.timer;
    auto late = timer.atTime(deadline).then([]() -> Result { return EstablishFailure(TimedOut()); });
    auto& reference = *self;
    return reference.start().exclusiveJoin(kj::mv(late)).then([self = kj::mv(self)](Result result) mutable {
      if (result.template is<EstablishFailure>() && self->link.get() != nullptr) self->link->close();
      return result;
    });
  }

 protected:
  Establisher(kj::Own<FrameLink> linkParam, const SessionEnvironment& environment)
      : link(kj::mv(linkParam)), environment(environment), writer(*link), tag(linkTag(link->hellos())) {}

  kj::Own<FrameLink> link;
  const SessionEnvironment environment;
  FrameWriter writer;
  LinkTag tag;
  kj::Own<Handshake> handshake;
  unsigned framesReceived = 0;
  // What the handshake came to. Made when it has, so that a peer that says nothing holds no room for it.
  struct Keys {
    HandshakeResult result;
    RecordSealer sealer;
    RecordOpener opener;
    Keys(HandshakeResult finished, LinkTag tag)
        : result(kj::mv(finished)), sealer(kj::mv(result.sealing), tag), opener(kj::mv(result.opening)) {}
  };
  kj::Own<Keys> keys;

  virtual kj::Promise<Result> start() = 0;
  virtual kj::OneOf<kj::Own<Handshake>, HandshakeRefusal> begin() = 0;
  virtual kj::Promise<Result> handshakeDone() = 0;
  virtual kj::Promise<Result> firstRecord(const Record& record) = 0;

  static Result fail(EstablishFailure why) { return Result(kj::mv(why)); }

  // Sends what is ours to send, then reads.
  kj::Promise<Result> advance() {
    if (handshake->isFinished()) return finishHandshake();
    if (!handshake->isWriting()) return receive();
    auto message = handshake->write();
    if (message.template is<HandshakeRefusal>()) return fail(message.template get<HandshakeRefusal>());
    return sendThen(handshakeFrame(tag, message.template get<Handshake::Message>().asPtr()),
                    [this]() { return advance(); });
  }

  kj::Promise<Result> finishHandshake() {
    keys = kj::heap<Keys>(handshake->finish(), tag);
    handshake = nullptr;  // its keys are wiped; what is needed is in the result
    return handshakeDone();
  }

  template <typename Next>
  kj::Promise<Result> sendThen(kj::Array<kj::byte> frame, Next next) {
    return writer.write(kj::mv(frame)).then([next = kj::mv(next)](bool written) mutable -> kj::Promise<Result> {
      if (!written) return fail(EstablishFailure(LinkEnd::ENDED));
      return next();
    });
  }

  kj::Promise<Result> receive() {
    auto next = link->readFrame();
    if (next.is<LinkEnd>()) return fail(EstablishFailure(next.get<LinkEnd>()));
    if (next.is<NoFrame>()) {
      return link->whenReadable().then([this]() { return receive(); });
    }
    // T21
    if (++framesReceived > limits::MAX_HANDSHAKE_FRAMES) {
      return fail(EstablishFailure(HandshakeRefusal::UNEXPECTED_MESSAGE));
    }
    // Copied, so that what came behind the frame can be moved out of the shared buffer: the next step may be turns
    // away.
    auto& frame = next.get<Frame>();
    kj::byte body[limits::MAX_HANDSHAKE_BODY_BYTES];
    KJ_ASSERT(frame.body.size() <= sizeof(body));
    memcpy(body, frame.body.begin(), frame.body.size());
    Frame copy{frame.kind, kj::arrayPtr(body, frame.body.size())};
    link->park();
    return keys.get() == nullptr ? receiveHandshake(copy) : receiveRecord(copy);
  }

  kj::Promise<Result> receiveHandshake(const Frame& frame) {
    if (frame.kind != FrameKind::HANDSHAKE) return fail(EstablishFailure(HandshakeRefusal::UNEXPECTED_MESSAGE));
    if (handshake.get() == nullptr) {
      auto begun = begin();
      if (begun.template is<HandshakeRefusal>()) return fail(EstablishFailure(begun.template get<HandshakeRefusal>()));
      handshake = kj::mv(begun.template get<kj::Own<Handshake>>());
    }
    KJ_IF_MAYBE (refusal, handshake->read(frame.body)) return fail(EstablishFailure(*refusal));
    return advance();
  }

  kj::Promise<Result> receiveRecord(const Frame& frame) {
    if (frame.kind != FrameKind::RECORD) return fail(EstablishFailure(HandshakeRefusal::UNEXPECTED_MESSAGE));
    // The longest record here has a link secret in it.
    alignas(8) kj::byte inner[limits::MAX_HANDSHAKE_BODY_BYTES];
    KJ_DEFER(sodium_memzero(inner, sizeof(inner)));
    auto room = kj::arrayPtr(inner, RecordOpener::innerBytes(frame.body.size()));
    auto opened = keys->opener.open(frame.body, room);
    if (opened.template is<RecordError>()) return fail(EstablishFailure(opened.template get<RecordError>()));
    return firstRecord(opened.template get<Record>());
  }

  kj::Own<Session> makeSession(Role self) {
    return kj::heap<Session>(self, kj::mv(link), kj::mv(keys->sealer), kj::mv(keys->opener), keys->result.enrolment,
                             environment);
  }
};

// Guest ----------------------------------------------------------------------------------------------------------

class GuestEstablisher final : public Establisher<GuestSession> {
 public:
  GuestEstablisher(kj::Own<FrameLink> link, const GuestCredentials& credentials, const Confirmation& confirmation,
                   const SessionEnvironment& environment)
      : Establisher(kj::mv(link), environment), credentials(credentials), confirm(encodeConfirmation(confirmation)) {}

 private:
  const GuestCredentials& credentials;
  kj::Array<kj::byte> confirm;

  kj::OneOf<kj::Own<Handshake>, HandshakeRefusal> begin() override {
    return Handshake::begin(link->hellos(), credentials, environment.random);
  }

  kj::Promise<Result> start() override {
    auto begun = begin();
    if (begun.is<HandshakeRefusal>()) return fail(EstablishFailure(begun.get<HandshakeRefusal>()));
    handshake = kj::mv(begun.get<kj::Own<Handshake>>());
    return advance();
  }

  kj::Promise<Result> handshakeDone() override {
    return sendThen(recordFrame(keys->sealer, RecordType::CONFIRM, confirm), [this]() { return receive(); });
  }

  kj::Promise<Result> firstRecord(const Record& record) override {
    if (record.header.type == RecordType::CLOSE) {
      KJ_IF_MAYBE (code, parseCloseCode(record.data[0])) return fail(EstablishFailure(*code));
      return fail(EstablishFailure(BadConfirmation()));
    }
    if (record.header.type != RecordType::CONFIRM) return fail(EstablishFailure(BadConfirmation()));
    KJ_IF_MAYBE (acceptance, parseAcceptance(record.data)) {
      auto& result = keys->result;
      // A link secret comes with an enrolment and nowhere else.
      if ((acceptance->linkSecret != nullptr) != result.enrolment) return fail(EstablishFailure(BadConfirmation()));
      auto host = result.host;
      return Result(GuestSession{makeSession(Role::GUEST), kj::mv(*acceptance), host});
    }
    return fail(EstablishFailure(BadConfirmation()));
  }
};

// Host -----------------------------------------------------------------------------------------------------------

class Incoming final : public IncomingSession {
 public:
  Incoming(kj::Own<FrameLink> linkParam, RecordSealer sealer, RecordOpener opener, bool enrolment,
           GuestPublicKey guestKey, Confirmation confirmation, const SessionEnvironment& environment)
      : link(kj::mv(linkParam)),
        sealer(kj::mv(sealer)),
        opener(kj::mv(opener)),
        enrolment(enrolment),
        guestKey(guestKey),
        confirmed(kj::mv(confirmation)),
        environment(environment) {}
  ~Incoming() noexcept(false) {
    if (link.get() != nullptr) link->close();
  }

  const Confirmation& confirmation() const override { return confirmed; }
  const GuestPublicKey& guest() const override { return guestKey; }
  bool isEnrolment() const override { return enrolment; }

  kj::Own<Session> accept(const Acceptance& acceptance) override {
    KJ_REQUIRE(link.get() != nullptr, "accepted or refused before");
    KJ_REQUIRE((acceptance.linkSecret != nullptr) == enrolment, "a link secret is for an enrolment");
    auto data = encodeAcceptance(acceptance);
    auto frame = recordFrame(sealer, RecordType::CONFIRM, data);
    sodium_memzero(data.begin(), data.size());
    auto session = kj::heap<Session>(Role::HOST, kj::mv(link), kj::mv(sealer), kj::mv(opener), enrolment, environment);
    session->sendFirst(kj::mv(frame));
    return session;
  }

  kj::Promise<void> refuse(CloseCode code) override {
    KJ_REQUIRE(link.get() != nullptr, "accepted or refused before");
    const kj::byte data[1] = {static_cast<kj::byte>(code)};
    auto frame = recordFrame(sealer, RecordType::CLOSE, data);
    auto owned = kj::mv(link);
    auto writer = kj::heap<FrameWriter>(*owned);
    auto written = writer->write(kj::mv(frame)).ignoreResult();
    return written.exclusiveJoin(environment.timer.afterDelay(limits::CLOSE_LINGER))
        .then([link = kj::mv(owned), writer = kj::mv(writer)]() mutable { link->close(); });
  }

 private:
  kj::Own<FrameLink> link;
  RecordSealer sealer;
  RecordOpener opener;
  bool enrolment;
  GuestPublicKey guestKey;
  Confirmation confirmed;
  const SessionEnvironment environment;
};

class HostEstablisher final : public Establisher<kj::Own<IncomingSession>> {
 public:
  HostEstablisher(kj::Own<FrameLink> link, HostKeyring& keyring, const SessionEnvironment& environment)
      : Establisher(kj::mv(link), environment), keyring(keyring) {}

 private:
  HostKeyring& keyring;

  // Nothing is computed, and no handshake state exists, before the guest's first message is there.
  kj::Promise<Result> start() override { return receive(); }

  kj::OneOf<kj::Own<Handshake>, HandshakeRefusal> begin() override {
    return Handshake::begin(link->hellos(), keyring, environment.random);
  }

  // T8
  kj::Promise<Result> handshakeDone() override { return receive(); }

  kj::Promise<Result> firstRecord(const Record& record) override {
    if (record.header.type != RecordType::CONFIRM) return fail(EstablishFailure(BadConfirmation()));
    KJ_IF_MAYBE (confirmation, parseConfirmation(record.data)) {
      auto& result = keys->result;
      kj::Own<IncomingSession> incoming =
          kj::heap<Incoming>(kj::mv(link), kj::mv(keys->sealer), kj::mv(keys->opener), result.enrolment, result.guest,
                             kj::mv(*confirmation), environment);
      return Result(kj::mv(incoming));
    }
    return fail(EstablishFailure(BadConfirmation()));
  }
};

}  // namespace

kj::Promise<kj::OneOf<GuestSession, EstablishFailure>> establishAsGuest(kj::Own<FrameLink> link,
                                                                        const GuestCredentials& credentials,
                                                                        const Confirmation& confirmation,
                                                                        kj::TimePoint deadline,
                                                                        const SessionEnvironment& environment) {
  return Establisher<GuestSession>::run(
      kj::heap<GuestEstablisher>(kj::mv(link), credentials, confirmation, environment), deadline);
}

kj::Promise<kj::OneOf<kj::Own<IncomingSession>, EstablishFailure>> establishAsHost(
    kj::Own<FrameLink> link, HostKeyring& keyring, kj::TimePoint deadline, const SessionEnvironment& environment) {
  return Establisher<kj::Own<IncomingSession>>::run(kj::heap<HostEstablisher>(kj::mv(link), keyring, environment),
                                                    deadline);
}

kj::StringPtr describe(const EstablishFailure& failure) {
  KJ_SWITCH_ONEOF(failure) {
    KJ_CASE_ONEOF(end, LinkEnd) {
      switch (end) {
        case LinkEnd::ENDED:
          return "the peer closed the link";
        case LinkEnd::PEER_RESTARTED:
          return "the peer started anew";
        case LinkEnd::BAD_FRAME:
          return "the peer sent what is no frame";
        case LinkEnd::CLOSED:
          return "closed by this end";
      }
    }
    KJ_CASE_ONEOF(refusal, HandshakeRefusal) {
      return describe(refusal);
    }
    KJ_CASE_ONEOF(error, RecordError) {
      return describe(error);
    }
    KJ_CASE_ONEOF(code, CloseCode) {
      return describe(code);
    }
    KJ_CASE_ONEOF(_, TimedOut) {
      return "the handshake took too long";
    }
    KJ_CASE_ONEOF(_, BadConfirmation) {
      return "CONFIRM or ACCEPT that makes no sense";
    }
  }
  KJ_UNREACHABLE;
}

}  // namespace postern
