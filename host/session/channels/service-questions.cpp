#include "host/session/channels/service-questions.h"

#include <kj/debug.h>

#include "host/log/log.h"

namespace postern::host {

// A target that posternd has reached for the guest. posternd counts the channel as open, and is told of its end if
// nothing comes of it.
class ServiceQuestions::Reached {
 public:
  Reached(ChannelBook& book, KeptChannel channel, kj::Own<ChannelBook::Place> place, kj::Own<RelayEnd> end,
          kj::Maybe<MirroredChannel::Terms> mirror)
      : book(book), channel(kj::mv(channel)), place(kj::mv(place)), end(kj::mv(end)), mirror(kj::mv(mirror)) {}
  ~Reached() noexcept(false) {
    if (end.get() != nullptr) book.neverOpened(kj::mv(channel), "reset");
  }
  KJ_DISALLOW_COPY(Reached);

  void begin(kj::Own<BulkChannel> bulk) {
    book.keep(book.run(kj::mv(place), kj::mv(channel), kj::mv(mirror), kj::mv(bulk), kj::mv(end)));
  }

 private:
  ChannelBook& book;
  KeptChannel channel;
  kj::Own<ChannelBook::Place> place;
  kj::Own<RelayEnd> end;
  kj::Maybe<MirroredChannel::Terms> mirror;
};

ServiceQuestions::ServiceQuestions(ChannelBook& book, Ask ask)
    : book(book), timer(book.timer()), ask(kj::mv(ask)), tasks(*this) {}

ServiceQuestions::~ServiceQuestions() noexcept(false) {}

kj::Promise<bool> ServiceQuestions::connect(GuestEnd& guest, kj::Maybe<ServiceQuestion> question) {
  if (unanswered >= MAX_UNANSWERED_QUESTIONS) {
    guest.session().breakOff(CloseCode::RESOURCE_LIMIT, "more questions than a link has channels for");
    return kj::NEVER_DONE;
  }
  ++unanswered;
  auto arrived = timer.now();
  bool isAsked = !isTooMany();
  BulkOffer offer{0, 0};
  auto decided = kj::Promise<MaybeReached>(MaybeReached(nullptr));
  KJ_IF_MAYBE (q, question) {
    offer = q->untrustedOffer;
    if (isAsked) decided = decide(*q);
  }
  return decided.then([this, &guest, offer](MaybeReached reached) { return begin(guest, offer, kj::mv(reached)); })
      .then([this, arrived](bool granted) -> kj::Promise<bool> {
        if (granted) return true;
        return deny(arrived);
      })
      .attach(kj::defer([this]() { --unanswered; }));
}

// T106
kj::Promise<bool> ServiceQuestions::deny(kj::TimePoint arrived) {
  auto steps = kj::max((timer.now() - arrived + DENIAL_STEP - 1 * kj::NANOSECONDS) / DENIAL_STEP, 1);
  return timer.atTime(arrived + steps * DENIAL_STEP).then([]() { return false; });
}

// T107
bool ServiceQuestions::isTooMany() {
  if (open < MAX_OPEN_QUESTIONS && bucket.tryTake(1, timer.now())) return false;
  book.refused("");
  if (++tooMany > 1) return true;
  tasks.add(timer.afterDelay(TOO_MANY_PERIOD).then([this]() {
    book.posternd().refused(0, "", "too many questions", tooMany);
    tooMany = 0;
  }));
  return true;
}

kj::Promise<ServiceQuestions::MaybeReached> ServiceQuestions::decide(ServiceQuestion& question) {
  KeptChannel channel;
  channel.id = book.newId();
  channel.to = kj::mv(question.to);
  channel.service = kj::mv(question.service);
  KJ_IF_MAYBE (asked, ask(channel.id, channel.to, channel.service)) {
    ++open;
    auto waiting = kj::newPromiseAndFulfiller<MaybeReached>();
    // It goes on when the guest gives up: posternd may have opened what has to be told as ended.
    auto reached = reach(kj::mv(channel), kj::mv(*asked))
                       .catch_([](kj::Exception&&) { return MaybeReached(nullptr); })
                       .then([fulfiller = kj::mv(waiting.fulfiller)](MaybeReached result) mutable {
                         fulfiller->fulfill(kj::mv(result));
                       });
    tasks.add(reached.attach(kj::defer([this]() { --open; })));
    auto late = timer.afterDelay(QUESTION_PATIENCE).then([]() { return MaybeReached(nullptr); });
    return waiting.promise.exclusiveJoin(kj::mv(late));
  }
  return MaybeReached(nullptr);
}

kj::Promise<ServiceQuestions::MaybeReached> ServiceQuestions::reach(KeptChannel channel, kj::Promise<Answer> asked) {
  return asked.then([this, channel = kj::mv(channel)](Answer answer) mutable -> kj::Promise<MaybeReached> {
    if (!answer.getAllowed()) return MaybeReached(nullptr);
    kj::Maybe<schema::Descriptor::Client> socket;
    if (answer.hasSocket()) socket = answer.getSocket();
    auto flow = answer.getFlow();
    return takeFlow(book, flow, kj::mv(socket))
        .attach(kj::mv(answer))
        .then([this, channel = kj::mv(channel)](PassedFlow passed) mutable {
          return judge(kj::mv(channel), kj::mv(passed));
        });
  });
}

ServiceQuestions::MaybeReached ServiceQuestions::judge(KeptChannel channel, PassedFlow flow) {
  if (flow.end.get() == nullptr) {
    book.neverOpened(kj::mv(channel), "reset");
    return nullptr;
  }
  kj::Maybe<const PassedRule&> rule;
  KJ_IF_MAYBE (r, flow.rule) {
    rule = *r;
    channel.rule = kj::str(r->id);
  }
  auto begun = book.begin(rule);
  if (begun.is<kj::String>()) {
    book.refused(channel.rule);
    book.neverOpened(kj::mv(channel), "refused");
    return nullptr;
  }
  return kj::heap<Reached>(book, kj::mv(channel), kj::mv(begun.get<kj::Own<ChannelBook::Place>>()), kj::mv(flow.end),
                           kj::mv(flow.mirror));
}

// The guest's channel is looked at once posternd has said yes, and not before: what a no costs is the same for all.
bool ServiceQuestions::begin(GuestEnd& guest, const BulkOffer& offer, MaybeReached reached) {
  KJ_IF_MAYBE (target, reached) {
    auto accepted = guest.session().bulk().accept(offer);
    KJ_IF_MAYBE (error, accepted.tryGet<BulkError>()) {
      if (*error != BulkError::TOO_MANY) guest.session().breakOff(CloseCode::PROTOCOL_ERROR, describe(*error));
      return false;
    }
    (*target)->begin(kj::mv(accepted.get<kj::Own<BulkChannel>>()));
    return true;
  }
  return false;
}

void ServiceQuestions::taskFailed(kj::Exception&& exception) {
  logEvent(LogLevel::ERROR, "channel-failed", exception.getDescription());
}

}  // namespace postern::host
