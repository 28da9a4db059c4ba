#include "guest-agent/services/channel-service.h"

#include "guest-agent/log/log.h"
#include "guest-agent/offered-channel.h"
#include "protocol/policy/names.h"
#include "transport/relay/relay.h"

namespace postern::guest {

namespace {

using Reason = schema::Refusal::Reason;

std::string keyOf(kj::StringPtr text) {
  return std::string(text.begin(), text.size());
}

void refuse(schema::Refusal::Builder out, kj::StringPtr service, const ServiceRefusal& refusal) {
  switch (refusal.kind) {
    case ServiceRefusal::Kind::DENIED:
      return fill(out, Denial{kj::str(refusal.text), kj::str(refusal.rule), kj::String()});
    case ServiceRefusal::Kind::NOT_EXPORTED:
      return fill(out, Reason::UNSUPPORTED, refusal.text);
    case ServiceRefusal::Kind::BUSY:
      return fill(out, Reason::BUSY, refusal.text);
    case ServiceRefusal::Kind::NOT_REACHED:
      break;
  }
  fill(out, Reason::FAILED, kj::str("service '", service, "' was not reached: ", refusal.text));
}

}  // namespace

// One, from the decision about it to its end.
class ChannelService::Channel {
 public:
  Channel(ChannelService& service, kj::Own<Rights> rights, kj::StringPtr name, kj::ArrayPtr<const kj::byte> identity)
      : Channel(service, kj::mv(rights), name, identity, kj::newPromiseAndFulfiller<void>()) {}
  ~Channel() noexcept(false) {
    service.live.erase(this);
    auto count = service.perCaller.find(keyOf(rights->text));
    if (--count->second == 0) service.perCaller.erase(count);
  }
  KJ_DISALLOW_COPY(Channel);

  const kj::String name;

  // By the policy and the services that are in force now.
  bool isAllowed() { return rights->denialOf(name) == nullptr && service.isExported(name, identity); }
  void cut() { fulfiller->fulfill(); }
  kj::Promise<void> whenCut() { return whenFulfilled.addBranch(); }

 private:
  ChannelService& service;
  kj::Own<Rights> rights;
  const kj::Array<kj::byte> identity;
  kj::Own<kj::PromiseFulfiller<void>> fulfiller;
  kj::ForkedPromise<void> whenFulfilled;

  Channel(ChannelService& service, kj::Own<Rights> rightsParam, kj::StringPtr name,
          kj::ArrayPtr<const kj::byte> identity, kj::PromiseFulfillerPair<void> cutting)
      : name(kj::str(name)),
        service(service),
        rights(kj::mv(rightsParam)),
        identity(kj::heapArray(identity)),
        fulfiller(kj::mv(cutting.fulfiller)),
        whenFulfilled(cutting.promise.fork()) {
    service.live.insert(this);
    ++service.perCaller[keyOf(rights->text)];
  }
};

// Destroyed from below: the relay closes channel and socket before the program is told to end.
struct ChannelService::Running {
  kj::Own<Channel> channel;
  kj::Own<void> program;
  kj::Own<Relay> relay;
};

// Service --------------------------------------------------------------------------------------------------------

kj::Own<ChannelService::Caller> ChannelService::newCaller(Session& session, kj::StringPtr callerText, Decide decide) {
  return kj::heap<Caller>(*this, session, kj::refcounted<Rights>(callerText, kj::mv(decide)));
}

// T101
void ChannelService::reconsider(kj::Vector<ExportedService> exported) {
  exports.clear();
  for (auto& one : exported) exports.emplace(keyOf(one.name), kj::mv(one.identity));
  size_t cut = 0;
  for (auto* channel : live) {
    if (channel->isAllowed()) continue;
    channel->cut();
    ++cut;
  }
  if (cut > 0) {
    logInfo("channels-cut", kj::str(cut, cut == 1 ? " channel is" : " channels are",
                                    " reset: this guest's new configuration does not allow it as it was opened"));
  }
}

bool ChannelService::isExported(kj::StringPtr name, kj::ArrayPtr<const kj::byte> identity) const {
  auto found = exports.find(keyOf(name));
  return found != exports.end() && found->second.asPtr() == identity;
}

// Callers --------------------------------------------------------------------------------------------------------

ChannelService::Caller::Caller(ChannelService& service, Session& session, kj::Own<Rights> rightsParam)
    : service(service), session(session), rights(kj::mv(rightsParam)) {}

// T98
kj::Promise<void> ChannelService::Caller::connect(schema::GuestCalls::ConnectParams::Reader untrusted,
                                                  schema::GuestCalls::ConnectResults::Builder results) {
  kj::StringPtr name = untrusted.getService();
  if (!policy::isServiceName(name)) {
    fill(results.initRefusal(), Reason::INVALID,
         "a service's name is 1 to 64 letters, digits, '-' and '_', beginning with a letter or digit");
    return kj::READY_NOW;
  }
  KJ_IF_MAYBE (denial, rights->denialOf(name)) {
    fill(results.initRefusal(), *denial);
    return kj::READY_NOW;
  }
  auto exported = service.exports.find(keyOf(name));
  if (exported == service.exports.end()) {
    fill(results.initRefusal(), Reason::UNSUPPORTED, kj::str("this guest exports no service '", name, "'"));
    return kj::READY_NOW;
  }
  if (isFull()) return refuseOffer(session, BulkError::TOO_MANY, results.initRefusal());
  auto accepted = session.bulk().accept({untrusted.getChannel(), untrusted.getCredit()});
  KJ_IF_MAYBE (error, accepted.tryGet<BulkError>()) return refuseOffer(session, *error, results.initRefusal());
  return reach(kj::heap<Channel>(service, kj::addRef(*rights), name, exported->second),
               kj::mv(accepted.get<kj::Own<BulkChannel>>()), results);
}

// T103
bool ChannelService::Caller::isFull() const {
  if (service.live.size() >= MAX_EXPORTED_CHANNELS) return true;
  auto own = service.perCaller.find(keyOf(rights->text));
  return own != service.perCaller.end() && own->second >= MAX_CALLER_CHANNELS;
}

// The channel is known from now on, so that a new configuration that comes while the broker is at it counts for it.
kj::Promise<void> ChannelService::Caller::reach(kj::Own<Channel> channel, kj::Own<BulkChannel> bulk,
                                                schema::GuestCalls::ConnectResults::Builder results) {
  auto cut = channel->whenCut().then([]() -> Outcome {
    return ServiceRefusal{ServiceRefusal::Kind::DENIED, kj::str("this guest's configuration changed meanwhile"),
                          kj::String()};
  });
  auto opening = service.broker.openService(channel->name, rights->text);
  return opening.exclusiveJoin(kj::mv(cut))
      .then([this, channel = kj::mv(channel), bulk = kj::mv(bulk), results](Outcome outcome) mutable {
        KJ_IF_MAYBE (refusal, outcome.tryGet<ServiceRefusal>()) {
          refuse(results.initRefusal(), channel->name, *refusal);
        } else {
          service.begin(kj::mv(channel), kj::mv(bulk), kj::mv(outcome.get<OpenedService>()));
        }
      });
}

void ChannelService::begin(kj::Own<Channel> channel, kj::Own<BulkChannel> bulk, OpenedService opened) {
  auto cut = channel->whenCut();
  auto running = kj::heap<Running>();
  running->channel = kj::mv(channel);
  running->program = kj::mv(opened.program);
  running->relay = kj::heap<Relay>(kj::mv(bulk), newSocketEnd(port, kj::mv(opened.socket)));
  auto relaying = running->relay->run().ignoreResult();
  tasks.add(relaying.exclusiveJoin(kj::mv(cut)).attach(kj::mv(running)));
}

void ChannelService::Caller::services(schema::GuestCalls::ServicesResults::Builder results) {
  kj::Vector<kj::StringPtr> granted;
  for (auto& entry : service.exports) {
    kj::StringPtr name(entry.first.c_str(), entry.first.size());
    if (rights->denialOf(name) == nullptr) granted.add(name);
  }
  auto list = results.initServices(static_cast<unsigned>(granted.size()));
  for (unsigned i = 0; i < list.size(); ++i) list.set(i, granted[i]);
}

void ChannelService::Failures::taskFailed(kj::Exception&& exception) {
  logWarning("channel-failed", exception.getDescription());
}

}  // namespace postern::guest
