#include "tests/support/small-host.h"

#include <kj/debug.h>

#include "protocol/limits.h"
#include "transport/serial-link.h"
#include "transport/stream-link.h"

namespace postern::test {

// What the host's keys are when a link comes.
struct SmallHost::Keyring final : public HostKeyring {
  kj::Maybe<HostIdentity> current;
  kj::Maybe<HostIdentity> pending;  // the offer's, bound to a guest
  kj::Maybe<HostEnrolment> enrolment;
  bool isPending = false;

  explicit Keyring(const HostState& state) {
    KJ_IF_MAYBE (pair, state.current) {
      auto& own = pair->identity;
      current = HostIdentity{state.vm, {own.own.pair.clone()}, own.guest, {own.linkSecret.bytes.clone()}};
    }
    KJ_IF_MAYBE (offer, state.offer) {
      enrolment = HostEnrolment{state.vm, {offer->own.pair.clone()}, offer->guest, {offer->token.bytes.clone()}};
      KJ_IF_MAYBE (guest, offer->guest) {
        auto& secret = KJ_ASSERT_NONNULL(offer->linkSecret);
        pending = HostIdentity{state.vm, {offer->own.pair.clone()}, *guest, {secret.bytes.clone()}};
      }
    }
  }
  kj::Maybe<const HostIdentity&> identityFor(const Hint& hint) override {
    KJ_IF_MAYBE (own, pending) {
      isPending = keyHint(own->own.publicKey(), own->guest) == hint;
      if (isPending) return *own;
    }
    KJ_IF_MAYBE (own, current) {
      if (keyHint(own->own.publicKey(), own->guest) == hint) return *own;
    }
    return nullptr;
  }
  kj::Maybe<const HostEnrolment&> enrolmentFor(const Hint& hint) override {
    KJ_IF_MAYBE (own, enrolment) {
      if (tokenHint(own->token) == hint) return *own;
    }
    return nullptr;
  }
};

class SmallHost::Server final : public schema::Host::Server {
 public:
  explicit Server(SmallHost& host) : host(host) {}

 protected:
  kj::Promise<void> heartbeat(HeartbeatContext context) override {
    ++host.heartbeats;
    host.lastHeartbeat = kj::heap<capnp::MallocMessageBuilder>();
    host.lastHeartbeat->setRoot(context.getParams());
    host.event(kj::str("heartbeat ", context.getParams().getSequence()));
    if (!host.answersHeartbeats) return kj::NEVER_DONE;
    context.getResults().setIntervalMilliseconds(host.interval);
    return kj::READY_NOW;
  }
  kj::Promise<void> goodbye(GoodbyeContext context) override {
    host.goodbyes.add(context.getParams().getWhy());
    host.event(kj::str("goodbye ", static_cast<unsigned>(context.getParams().getWhy())));
    return kj::READY_NOW;
  }
  kj::Promise<void> connect(ConnectContext context) override {
    auto params = context.getParams();
    host.event(kj::str("connect ", params.getTo(), ' ', params.getService()));
    KJ_IF_MAYBE (serve, host.onChannel) {
      auto accepted = host.session().bulk().accept({params.getChannel(), params.getCredit()});
      KJ_IF_MAYBE (channel, accepted.tryGet<kj::Own<BulkChannel>>()) (*serve)(kj::mv(*channel));
    } else {
      context.getResults().initRefusal().setReason(schema::Refusal::Reason::DENIED);
    }
    return kj::READY_NOW;
  }

 private:
  SmallHost& host;
};

struct SmallHost::Live {
  kj::Own<Session> session;
  RpcConnection rpc;

  Live(kj::Own<Session> sessionParam, SmallHost& host)
      : session(kj::mv(sessionParam)), rpc(*session, Role::HOST, bootstrapOf(host), [](kj::StringPtr) {}) {}

  static capnp::Capability::Client bootstrapOf(SmallHost& host) {
    KJ_IF_MAYBE (other, host.bootstrap) return (*other)();
    return kj::heap<Server>(host);
  }
};

// The pipe goes last.
struct SmallHost::Line {
  kj::Own<BytePipe> pipe;
  SerialLink link;

  Line(kj::Own<BytePipe> pipeParam, const Hello& hello, SmallHost& host)
      : pipe(kj::mv(pipeParam)), link(*pipe, hello, host.random, host.timer, host.scratch) {}
};

SmallHost::SmallHost(kj::Timer& timer, Random& random)
    : timer(timer), random(random), pool(timer), environment{timer, pool, random}, tasks(*this) {
  random.fill(kj::arrayPtr(vm.bytes.data(), vm.bytes.size()));
  state.vm = vm;
}

SmallHost::~SmallHost() noexcept(false) {}

kj::Own<Bundle> SmallHost::offer() {
  HostOffer made;
  made.own = HostKeyPair::generate(random);
  made.token = EnrolmentToken::generate(random);
  made.lifetimeSeconds = 900;
  auto bundle = kj::heap<Bundle>();
  bundle->vm = vm;
  bundle->vmName = kj::str("web1");
  bundle->host = made.own.publicKey();
  bundle->token.bytes = made.token.bytes.clone();
  bundle->lifetimeSeconds = 900;
  state.offer = kj::mv(made);
  return bundle;
}

void SmallHost::serve(kj::Own<BytePipe> pipe) {
  Hello hello;
  hello.role = Role::HOST;
  hello.versionMax = versionMax;
  hello.patterns = PATTERN_KKPSK0 | PATTERN_XXPSK0;
  random.fill(kj::arrayPtr(hello.nonce.data(), hello.nonce.size()));
  tasks.add(openStreamLink(kj::mv(pipe), hello, scratch)
                .then([this](kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd> link) -> kj::Promise<void> {
                  if (!link.is<kj::Own<FrameLink>>()) return kj::READY_NOW;
                  return meet(kj::mv(link.get<kj::Own<FrameLink>>()));
                }));
}

void SmallHost::serveSerial(kj::Own<BytePipe> pipe) {
  Hello hello;
  hello.role = Role::HOST;
  hello.patterns = PATTERN_KKPSK0 | PATTERN_XXPSK0;
  listening = nullptr;
  live = nullptr;
  line = kj::heap<Line>(kj::mv(pipe), hello, *this);
  listening = acceptSerial().eagerlyEvaluate(nullptr);
}

kj::Promise<void> SmallHost::acceptSerial() {
  return KJ_ASSERT_NONNULL(line)->link.accept().then([this](auto link) -> kj::Promise<void> {
    if (link.template is<LinkEnd>()) return kj::READY_NOW;
    return meet(kj::mv(link.template get<kj::Own<FrameLink>>()))
        .then([this]() -> kj::Promise<void> {
          KJ_IF_MAYBE (l, live) return (*l)->session->onEnd().ignoreResult();
          return kj::READY_NOW;
        })
        .then([this]() {
          live = nullptr;
          return acceptSerial();
        });
  });
}

kj::Promise<void> SmallHost::meet(kj::Own<FrameLink> link) {
  if (refuses) {
    event(kj::str("refused"));
    return kj::READY_NOW;
  }
  auto keyring = kj::heap<Keyring>(state);
  auto& keys = *keyring;
  return establishAsHost(kj::mv(link), keys, timer.now() + limits::HANDSHAKE_DEADLINE, environment)
      .then([this, keyring = kj::mv(keyring)](auto result) mutable -> kj::Promise<void> {
        if (result.template is<EstablishFailure>()) {
          auto& failure = result.template get<EstablishFailure>();
          bool reuse = failure.template is<HandshakeRefusal>() &&
                       failure.template get<HandshakeRefusal>() == HandshakeRefusal::WRONG_GUEST_KEY;
          if (reuse) ++tokenReuses;
          event(kj::str("not established: ", describe(failure)));
          return kj::READY_NOW;
        }
        return met(kj::mv(result.template get<kj::Own<IncomingSession>>()), kj::mv(keyring));
      });
}

kj::Promise<void> SmallHost::met(kj::Own<IncomingSession> incoming, kj::Own<Keyring> keyring) {
  counters.add(incoming->confirmation().sessionCounter);
  if (incoming->isEnrolment()) return enrol(*incoming).attach(kj::mv(incoming));
  if (keyring->isPending) commit();
  begin(incoming->accept({features, nullptr}));
  return kj::READY_NOW;
}

kj::Promise<void> SmallHost::enrol(IncomingSession& incoming) {
  auto& offered = KJ_ASSERT_NONNULL(state.offer);
  if (offered.linkSecret == nullptr) {
    offered.guest = incoming.guest();
    offered.linkSecret = LinkSecret::generate(random);
  }
  if (dropBeforeAccept > 0) {
    --dropBeforeAccept;
    return kj::READY_NOW;
  }
  Acceptance acceptance;
  acceptance.features = features;
  acceptance.linkSecret = LinkSecret{KJ_ASSERT_NONNULL(offered.linkSecret).bytes.clone()};
  auto session = incoming.accept(acceptance);
  auto& reference = *session;
  return reference.whenCommit().then([this, session = kj::mv(session)]() mutable {
    if (state.offer != nullptr) commit();
    if (dropBeforeCommitted > 0) {
      --dropBeforeCommitted;
      return;
    }
    session->confirmCommit();
    begin(kj::mv(session));
  });
}

void SmallHost::commit() {
  auto& offered = KJ_ASSERT_NONNULL(state.offer);
  HostPair pair;
  pair.identity = HostIdentity{vm, kj::mv(offered.own), KJ_ASSERT_NONNULL(offered.guest),
                               kj::mv(KJ_ASSERT_NONNULL(offered.linkSecret))};
  state.current = kj::mv(pair);
  state.offer = nullptr;
  ++enrolments;
  event(kj::str("enrolled"));
}

void SmallHost::begin(kj::Own<Session> session) {
  ++sessions;
  // The newer one replaces the older.
  KJ_IF_MAYBE (old, live) tasks.add((*old)->session->close(CloseCode::REPLACED).attach(kj::mv(*old)));
  auto started = kj::heap<Live>(kj::mv(session), *this);
  auto& reference = *started;
  live = kj::mv(started);
  event(kj::str("session ", sessions));
  tasks.add(reference.session->onEnd().then([this, &reference](SessionEnd end) {
    lastEnd = describe(end);
    event(kj::str("session over: ", lastEnd));
    KJ_IF_MAYBE (l, live) {
      if (l->get() == &reference) live = nullptr;
    }
  }));
}

void SmallHost::drop(kj::Maybe<CloseCode> code) {
  KJ_IF_MAYBE (l, live) {
    auto gone = kj::mv(*l);
    live = nullptr;
    KJ_IF_MAYBE (c, code) tasks.add(gone->session->close(*c).attach(kj::mv(gone)));
  }
}

schema::Guest::Client SmallHost::guest() {
  return KJ_ASSERT_NONNULL(live)->rpc.peer().castAs<schema::Guest>();
}

Session& SmallHost::session() {
  return *KJ_ASSERT_NONNULL(live)->session;
}

void SmallHost::taskFailed(kj::Exception&& exception) {
  event(kj::str("failed: ", exception.getDescription()));
}

}  // namespace postern::test
