#include "guest-agent/services/consumer.h"

#include <errno.h>
#include <kj/debug.h>
#include <sys/socket.h>

#include "guest-agent/log/log.h"
#include "transport/accept-queue.h"

namespace postern::guest {

namespace {

// Connections that are taken before the loop turns to others.
constexpr unsigned ACCEPTED_AT_ONCE = 16;

}  // namespace

// One of the channels, or of the questions, that may be: `counted` has them.
class Consumers::Consumer::Place {
 public:
  Place(Consumer& consumer, size_t& counted) : consumer(consumer), counted(counted) { ++counted; }
  ~Place() noexcept(false) {
    --counted;
    KJ_IF_MAYBE (waiter, consumer.roomWaiter) (*waiter)->fulfill();
  }
  KJ_DISALLOW_COPY(Place);

 private:
  Consumer& consumer;
  size_t& counted;
};

Consumers::Consumer::Consumer(Consumers& all, ConsumerBriefing briefing)
    : all(all),
      listen(kj::mv(briefing.listen)),
      from(kj::mv(briefing.from)),
      service(kj::mv(briefing.service)),
      socket(kj::mv(KJ_ASSERT_NONNULL(briefing.socket))),
      observer(all.port, socket, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      tasks(newTasks()),
      accepting(accept().eagerlyEvaluate([this](kj::Exception&& exception) {
        logError("consume-failed", kj::str(listen, ": ", exception.getDescription()));
      })) {}

Consumers::Consumer::~Consumer() noexcept(false) {}

void Consumers::Consumer::endChannels() {
  tasks = newTasks();
}

void Consumers::Consumer::become(kj::String newFrom, kj::String newService) {
  endChannels();
  from = kj::mv(newFrom);
  service = kj::mv(newService);
}

// Accepting ------------------------------------------------------------------------------------------------------

// T103
kj::Promise<void> Consumers::Consumer::accept() {
  for (unsigned i = 0; i < ACCEPTED_AT_ONCE; ++i) {
    if (count >= MAX_CONSUMER_CHANNELS || asking >= MAX_CONSUMER_QUESTIONS) return acceptWhenRoom();
    if (all.channels() >= MAX_CONSUMERS_CHANNELS || all.questions() >= MAX_CONSUMERS_QUESTIONS) {
      return acceptAfter(ACCEPT_PAUSE);
    }
    auto wait = all.turn();
    if (wait > 0 * kj::SECONDS) return acceptAfter(wait);
    int accepted = accept4(socket, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (accepted < 0) return acceptAfterFailure(errno);
    take(kj::AutoCloseFd(accepted));
  }
  return kj::evalLater([this] { return accept(); });
}

kj::Promise<void> Consumers::Consumer::acceptAfter(kj::Duration pause) {
  return timer().afterDelay(pause).then([this] { return accept(); });
}

kj::Promise<void> Consumers::Consumer::acceptAfterFailure(int error) {
  // The broker has shut it down, and is about to say so.
  if (error == EINVAL) return kj::NEVER_DONE;
  switch (classifyAcceptFailure(error)) {
    case AcceptFailure::NOTHING:
      return observer.whenBecomesReadable().then([this] { return accept(); });
    case AcceptFailure::TRY_NEXT:
      return kj::evalLater([this] { return accept(); });
    case AcceptFailure::PAUSE:
      all.troubles.tell(listen, kj::str(listen, ": connections wait: ", errorWords(error)));
      return timer().afterDelay(ACCEPT_PAUSE).then([this] { return accept(); });
    case AcceptFailure::OUR_BUG:
      break;
  }
  return KJ_EXCEPTION(FAILED, "accept4 on what does not listen", error);
}

kj::Promise<void> Consumers::Consumer::acceptWhenRoom() {
  if (count >= MAX_CONSUMER_CHANNELS) {
    all.troubles.tell(listen, kj::str(listen, ": ", MAX_CONSUMER_CHANNELS,
                                      " channels are open or waiting; connections wait until one ends"));
  }
  auto paf = kj::newPromiseAndFulfiller<void>();
  roomWaiter = kj::mv(paf.fulfiller);
  return paf.promise.then([this] { return accept(); });
}

void Consumers::Consumer::take(kj::AutoCloseFd connection) {
  auto end = newSocketEnd(all.port, kj::mv(connection));  // resets when it goes
  KJ_IF_MAYBE (uplink, all.uplink) {
    auto& session = (*uplink)->session;
    if (session.isOver()) return;
    KJ_IF_MAYBE (opened, session.bulk().open()) {
      tasks->add(connect(kj::mv(end), kj::mv(*opened), (*uplink)->host).attach(kj::heap<Place>(*this, count)));
    } else {
      all.troubles.tell(listen, kj::str(listen, ": the session has as many channels as it may"));
    }
  }
}

// Channels -------------------------------------------------------------------------------------------------------

kj::Promise<void> Consumers::Consumer::connect(kj::Own<RelayEnd> end, BulkMux::Opened opened,
                                               schema::Host::Client host) {
  auto reached = isReached(*end, opened.offer, kj::mv(host));
  return reached.then([end = kj::mv(end), channel = kj::mv(opened.channel)](bool is) mutable -> kj::Promise<void> {
    if (!is) return kj::READY_NOW;
    auto relay = kj::heap<Relay>(kj::mv(channel), kj::mv(end));
    auto running = relay->run().ignoreResult();
    return running.attach(kj::mv(relay));
  });
}

// `end` outlives the promise. False also if the program has gone meanwhile.
kj::Promise<bool> Consumers::Consumer::isReached(RelayEnd& end, const BulkOffer& offer, schema::Host::Client host) {
  // Hundreds may wait for their answers: two names and two numbers.
  auto request = host.connectRequest(capnp::MessageSize{32, 0});
  request.setTo(from);
  request.setService(service);
  request.setChannel(offer.channel);
  request.setCredit(offer.credit);
  auto answered = request.send().then([this](capnp::Response<schema::Host::ConnectResults> answer) {
    if (!answer.hasRefusal()) return true;
    all.denials.tell(listen, kj::str(describe(), ": denied"));
    return false;
  });
  auto late = timer().afterDelay(CONSUMER_CONNECT_DEADLINE).then([this] {
    all.troubles.tell(listen, kj::str(describe(), ": the host did not answer"));
    return false;
  });
  return answered.exclusiveJoin(kj::mv(late))
      .exclusiveJoin(end.whenReset().then([] { return false; }))
      .attach(kj::heap<Place>(*this, asking));
}

kj::String Consumers::Consumer::describe() const {
  return kj::str(listen, ": service.", service, " of ", from);
}

void Consumers::Consumer::taskFailed(kj::Exception&& exception) {
  // With its session; that is told elsewhere.
  if (exception.getType() == kj::Exception::Type::DISCONNECTED) return;
  all.troubles.tell(listen, kj::str(describe(), ": ", exception.getDescription()));
}

}  // namespace postern::guest
