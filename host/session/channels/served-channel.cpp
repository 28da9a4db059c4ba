#include "host/session/channels/served-channel.h"

#include <kj/debug.h>

namespace postern::host {

namespace {

using Outcome = schema::ServeOutcome;
using Reason = postern::schema::Refusal::Reason;

Outcome outcomeOf(Reason reason) {
  switch (reason) {
    case Reason::DENIED:
      return Outcome::DENIED;
    case Reason::UNSUPPORTED:
      return Outcome::NOT_EXPORTED;
    default:
      return Outcome::NOT_REACHED;
  }
}

Outcome outcomeOf(const kj::Exception& exception) {
  switch (exception.getType()) {
    case kj::Exception::Type::DISCONNECTED:
      return Outcome::NOT_CONNECTED;
    case kj::Exception::Type::UNIMPLEMENTED:
      return Outcome::NOT_EXPORTED;
    default:
      return Outcome::NOT_REACHED;
  }
}

// One, until it is open. Owned by its promise.
class Serving {
 public:
  Serving(Hub& hub, ChannelBook& book, ServeContext context) : hub(hub), book(book), context(context) {}
  KJ_DISALLOW_COPY(Serving);

  kj::Promise<Outcome> run() {
    auto params = context.getParams();
    kj::Maybe<schema::Descriptor::Client> socket;
    if (params.hasSocket()) socket = params.getSocket();
    return takeFlow(book, params.getFlow(), kj::mv(socket)).then([this](PassedFlow passed) -> kj::Promise<Outcome> {
      flow = kj::mv(passed);
      return ask();
    });
  }

 private:
  Hub& hub;
  ChannelBook& book;
  ServeContext context;
  PassedFlow flow;
  kj::Own<ChannelBook::Place> place;
  kj::Own<BulkChannel> bulk;

  kj::StringPtr rule() const {
    KJ_IF_MAYBE (r, flow.rule) return r->id;
    return "";
  }
  // Another channel has the id that another VM's session has chosen.
  bool isTaken() { return book.has(context.getParams().getFlow().getId()); }
  bool takePlace();
  kj::Promise<Outcome> ask();
  kj::Promise<Outcome> askFor(GuestEnd& guest);
  void begin();
};

bool Serving::takePlace() {
  kj::Maybe<const PassedRule&> passed;
  KJ_IF_MAYBE (r, flow.rule) passed = *r;
  auto begun = book.begin(passed);
  if (begun.is<kj::String>()) return false;
  place = kj::mv(begun.get<kj::Own<ChannelBook::Place>>());
  return true;
}

kj::Promise<Outcome> Serving::ask() {
  KJ_REQUIRE(flow.end.get() != nullptr, "no socket for the channel");
  KJ_IF_MAYBE (guest, hub.connected()) {
    if (isTaken() || !takePlace()) return Outcome::REFUSED;
    return askFor(*guest);
  }
  return Outcome::NOT_CONNECTED;
}

kj::Promise<Outcome> Serving::askFor(GuestEnd& guest) {
  auto opened = guest.session().bulk().open();
  KJ_IF_MAYBE (channel, opened) {
    bulk = kj::mv(channel->channel);
    auto callsFor = guest.guest().callsForRequest();
    callsFor.setCaller(context.getParams().getCaller());
    auto calls = callsFor.send().getCalls();
    auto request = calls.connectRequest();
    request.setService(context.getParams().getService());
    request.setChannel(channel->offer.channel);
    request.setCredit(channel->offer.credit);
    auto answered = request.send().then(
        [this](auto answer) -> Outcome {
          if (answer.hasRefusal()) return outcomeOf(answer.getRefusal().getReason());
          if (isTaken()) return Outcome::REFUSED;
          begin();
          return Outcome::REACHED;
        },
        [](kj::Exception&& exception) { return outcomeOf(exception); });
    // An open channel needs the caller's capability no more, and a thousand of them would be many.
    answered = answered.attach(kj::mv(calls));
    auto late = hub.timer().afterDelay(SERVED_DEADLINE).then([]() { return Outcome::NOT_REACHED; });
    return answered.exclusiveJoin(kj::mv(late));
  }
  return Outcome::REFUSED;
}

void Serving::begin() {
  auto params = context.getParams();
  KeptChannel channel;
  channel.id = params.getFlow().getId();
  channel.caller = kj::refcounted<ChannelCaller>(params.getCaller());
  channel.service = kj::str(params.getService());
  channel.rule = kj::str(rule());
  book.keep(book.run(kj::mv(place), kj::mv(channel), kj::mv(flow.mirror), kj::mv(bulk), kj::mv(flow.end)));
}

}  // namespace

kj::Promise<void> serveChannel(Hub& hub, ChannelBook& book, ServeContext context) {
  context.allowCancellation();
  auto serving = kj::heap<Serving>(hub, book, context);
  auto over = serving->run();
  return over
      .then([&book, context, rule = kj::str(context.getParams().getFlow().getRule())](Outcome outcome) mutable {
        if (outcome != Outcome::REACHED) book.refused(rule);
        context.getResults().setOutcome(outcome);
      })
      .attach(kj::mv(serving));
}

}  // namespace postern::host
