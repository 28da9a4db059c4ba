#include "host/session/channels/service-calls.h"

#include <kj/debug.h>

#include "host/control/failure.h"
#include "host/local-rpc/local-rpc.h"
#include "host/log/log.h"
#include "host/session/channels/passed-flow.h"
#include "host/session/guest-call.h"
#include "host/session/operation-log.h"
#include "protocol/policy/names.h"

namespace postern::host {

namespace {

using Kind = schema::Failure::Kind;
using ServiceRequest =
    capnp::Request<postern::schema::GuestCalls::ConnectParams, postern::schema::GuestCalls::ConnectResults>;

constexpr kj::StringPtr PREFIX = "service."_kj;
constexpr kj::StringPtr LAPSED = "posternd does not run, or was started again since it granted this; ask it anew"_kj;

kj::Maybe<MirroredChannel::Terms> copyOf(const kj::Maybe<MirroredChannel::Terms>& mirror) {
  KJ_IF_MAYBE (m, mirror) {
    return MirroredChannel::Terms{kj::addRef(const_cast<Mirror&>(*m->mirror)), m->full, kj::str(m->who), kj::str(m->to),
                                  kj::str(m->text)};
  }
  return nullptr;
}

}  // namespace

// One connection, from the caller's request until its channel is open. Owned by its promise.
class ServiceCalls::Connecting {
 public:
  Connecting(ServiceCalls& calls, const Service& service, ConnectContext context)
      : calls(calls), service(service), context(context) {}
  ~Connecting() noexcept(false) {
    KJ_IF_MAYBE (why, refusal) tellRefusal(*why);
  }
  KJ_DISALLOW_COPY(Connecting);

  kj::Promise<void> run(kj::Maybe<GuestCalls> guest);

 private:
  ServiceCalls& calls;
  const Service& service;
  ConnectContext context;
  StrangersFd stream;
  kj::Maybe<schema::ChannelObserver::Client> observer;
  kj::Own<ChannelBook::Place> place;
  kj::Own<BulkChannel> bulk;
  kj::Maybe<kj::StringPtr> refusal = "given up"_kj;  // null: there is nothing to tell

  kj::Promise<void> takeStream();
  kj::Promise<void> ask(GuestCalls guest);
  bool takePlace();
  bool openBulk(ServiceRequest& request);
  void begin(GuestCalls guest);
  void tellRefusal(kj::StringPtr why);

  // Told to nobody else: who granted it has gone.
  bool hasLapsed() {
    if (!calls.hasLapsed()) return false;
    refusal = nullptr;
    fail(Kind::LAPSED, LAPSED);
    return true;
  }
  bool hasFailed() { return context.getResults().hasFailure(); }
  bool fail(Kind kind, kj::StringPtr text) {
    setFailure(context.getResults().initFailure(), kind, text);
    return false;
  }
};

kj::Promise<void> ServiceCalls::Connecting::run(kj::Maybe<GuestCalls> guest) {
  auto asked = kj::Promise<void>(kj::READY_NOW);
  KJ_IF_MAYBE (connected, guest) {
    asked = takeStream().then([this, guest = *connected]() mutable -> kj::Promise<void> {
      if (hasFailed()) return kj::READY_NOW;
      return ask(kj::mv(guest));
    });
  }
  return asked.then(
      [this]() {
        if (refusal != nullptr && hasFailed()) refusal = outcomeOf(context.getResults().getFailure().asReader());
      },
      [this](kj::Exception&& exception) {
        refusal = "failed"_kj;
        kj::throwFatalException(kj::mv(exception));
      });
}

// T109
kj::Promise<void> ServiceCalls::Connecting::takeStream() {
  auto params = context.getParams();
  auto taken = params.hasStream() ? calls.sockets.take(params.getStream()) : StrangersFd();
  return taken.then([this](StrangersFd socket) {
    stream = kj::mv(socket);
    auto params = context.getParams();
    if (params.hasObserver()) observer = params.getObserver();
    context.releaseParams();
    if (!isConnectedStream(stream)) {
      fail(Kind::INVALID, "a connection needs a connected stream socket for its bytes");
    }
  });
}

// T109
kj::Promise<void> ServiceCalls::Connecting::ask(GuestCalls guest) {
  if (hasLapsed()) return kj::READY_NOW;
  auto request = guest.connectRequest();
  if (!takePlace() || !openBulk(request)) return kj::READY_NOW;
  request.setService(service.name);
  auto answered = request.send().then([this](auto answer) {
    if (answer.hasRefusal()) setFailure(context.getResults().initFailure(), answer.getRefusal());
  });
  return boundedCall(calls.hub.timer(), kj::mv(answered), SERVICE_CALL_DEADLINE,
                     [this]() { return context.getResults().initFailure(); })
      .then([this, guest = kj::mv(guest)]() mutable {
        if (!hasFailed() && !hasLapsed()) begin(kj::mv(guest));
      });
}

bool ServiceCalls::Connecting::takePlace() {
  auto begun = calls.book.begin(service.rule, calls.caller->reader().getUser().getUid());
  KJ_IF_MAYBE (tooMany, begun.tryGet<kj::String>()) return fail(Kind::REFUSED, *tooMany);
  place = kj::mv(begun.get<kj::Own<ChannelBook::Place>>());
  return true;
}

bool ServiceCalls::Connecting::openBulk(ServiceRequest& request) {
  KJ_IF_MAYBE (end, calls.hub.connected()) {
    KJ_IF_MAYBE (opened, end->session().bulk().open()) {
      bulk = kj::mv(opened->channel);
      request.setChannel(opened->offer.channel);
      request.setCredit(opened->offer.credit);
      return true;
    }
    return fail(Kind::REFUSED, "the link to the guest has no channel left; try again when one has ended");
  }
  return fail(Kind::NOT_CONNECTED, "the link to the guest has just ended");
}

void ServiceCalls::Connecting::begin(GuestCalls guest) {
  auto end = newSocketEnd(calls.book.eventPort(), stream.release());
  KeptChannel channel;
  channel.id = calls.book.newId();
  channel.grant = calls.grant;
  channel.caller = kj::addRef(*calls.caller);
  channel.service = kj::str(service.name);
  channel.rule = kj::str(service.rule.id);
  KJ_IF_MAYBE (m, service.mirror) channel.mirror = kj::str(m->text);
  refusal = nullptr;
  context.getResults().setChannel(channel.id);
  calls.book.posternd().opened(channel.id, calls.grant, service.name);
  auto running = calls.book.run(kj::mv(place), kj::mv(channel), copyOf(service.mirror), kj::mv(bulk), kj::mv(end));
  // The guest ends what a caller has under way when it is dropped.
  auto over = running.attach(kj::mv(guest));
  calls.channels.add(
      over.then([&calls = calls, observer = kj::mv(observer)](kj::StringPtr why) mutable -> kj::Promise<void> {
        KJ_IF_MAYBE (told, observer) return calls.tellEnd(*told, why);
        return kj::READY_NOW;
      }));
}

void ServiceCalls::Connecting::tellRefusal(kj::StringPtr why) {
  calls.book.refused(service.rule.id);
  calls.book.posternd().refused(calls.grant, service.name, why);
}

ServiceCalls::ServiceCalls(Hub& hub, ChannelBook& book, schema::Grant::Reader grant, kj::Array<kj::AutoCloseFd> mirrors,
                           PassedSockets& sockets)
    : hub(hub),
      book(book),
      sockets(sockets),
      grant(grant.getId()),
      attachment(book.posternd().currentAttachment()),
      caller(kj::refcounted<ChannelCaller>(grant.getCaller())),
      channels(*this) {
  unsigned i = 0;
  for (auto service : grant.getServices()) {
    kj::StringPtr call = service.getCall();
    auto socket = i < mirrors.size() ? kj::mv(mirrors[i]) : kj::AutoCloseFd();
    ++i;
    if (!call.startsWith(PREFIX) || !policy::isServiceName(call.slice(PREFIX.size()))) continue;
    auto& added = granted.add(Service{kj::str(call.slice(PREFIX.size())),
                                      {kj::str(service.getRule()), book.portLimits().gateOf(service.getRule())},
                                      nullptr});
    if (!service.hasMirror()) continue;
    added.mirror = mirrorTerms(book.eventPort(), service.getMirror(), kj::mv(socket));
  }
}

ServiceCalls::~ServiceCalls() noexcept(false) {}

// What a caller does with it is his affair, and costs no more than this.
kj::Promise<void> ServiceCalls::tellEnd(schema::ChannelObserver::Client observer, kj::StringPtr why) {
  if (toldEnds >= MAX_TOLD_ENDS) return kj::READY_NOW;
  ++toldEnds;
  auto request = observer.closedRequest();
  request.setWhy(why);
  return request.send().ignoreResult().catch_([](kj::Exception&&) {}).then([this]() { --toldEnds; });
}

kj::Maybe<const ServiceCalls::Service&> ServiceCalls::find(kj::StringPtr name) const {
  for (auto& service : granted) {
    if (service.name == name) return service;
  }
  return nullptr;
}

kj::Promise<void> ServiceCalls::connect(ConnectContext context, kj::Maybe<GuestCalls> guest) {
  auto& service = KJ_REQUIRE_NONNULL(find(context.getParams().getService()), "not granted");
  auto connecting = kj::heap<Connecting>(*this, service, context);
  auto over = connecting->run(kj::mv(guest));
  return over.attach(kj::mv(connecting));
}

kj::Promise<void> ServiceCalls::services(ServicesContext context, kj::Maybe<GuestCalls> guest) {
  KJ_IF_MAYBE (connected, guest) {
    auto answered = connected->servicesRequest(capnp::MessageSize{2, 0}).send().then([context](auto answer) mutable {
      if (answer.hasRefusal()) return setFailure(context.getResults().initFailure(), answer.getRefusal());
      kj::Vector<kj::StringPtr> names;
      for (kj::StringPtr name : answer.getServices()) {
        if (names.size() < MAX_LISTED_SERVICES && policy::isServiceName(name)) names.add(name);
      }
      auto list = context.getResults().initServices(static_cast<unsigned>(names.size()));
      for (unsigned i = 0; i < list.size(); ++i) list.set(i, names[i]);
    });
    return boundedCall(hub.timer(), kj::mv(answered), SERVICE_CALL_DEADLINE,
                       [context]() mutable { return context.getResults().initFailure(); });
  }
  return kj::READY_NOW;
}

void ServiceCalls::taskFailed(kj::Exception&& exception) {
  logEvent(LogLevel::ERROR, "channel-failed", exception.getDescription());
}

}  // namespace postern::host
