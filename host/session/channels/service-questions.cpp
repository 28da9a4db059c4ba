#include "host/session/channels/service-questions.h"

#include <kj/debug.h>

#include "host/log/log.h"

namespace postern::host {

// A channel that posternd counts as open from its answer on: it is told of its end if nothing comes of it, whatever the
// reason.
class ServiceQuestions::Allowed {
 public:
  Allowed(ChannelBook& book, KeptChannel channel) : book(book), channel(kj::mv(channel)) {}
  ~Allowed() noexcept(false) {
    if (!isTaken) book.neverOpened(kj::mv(channel), "reset"_kj);
  }
  KJ_DISALLOW_COPY(Allowed);

  KeptChannel take() {
    isTaken = true;
    return kj::mv(channel);
  }

  ChannelBook& book;
  KeptChannel channel;

 private:
  bool isTaken = false;
};

// What a question has at the limits.
struct ServiceQuestions::Entered final : public kj::Refcounted {
  kj::Own<ChannelBook::Place> place;  // null: none
  kj::Maybe<MirroredChannel::Terms> mirror;
};

class ServiceQuestions::Gate final : public Entrance::Server {
 public:
  Gate(ChannelBook& book, kj::Own<Entered> entered) : book(book), entered(kj::mv(entered)) {}

  kj::Promise<void> enter(EnterContext context) override {
    KJ_REQUIRE(!wasAsked, "a channel enters once");
    wasAsked = true;
    return takeFlow(book, context.getParams().getFlow()).then([this, context](PassedFlow flow) mutable {
      context.getResults().setEntered(take(kj::mv(flow)));
    });
  }

 private:
  ChannelBook& book;
  kj::Own<Entered> entered;
  bool wasAsked = false;

  bool take(PassedFlow flow);
};

// T104
bool ServiceQuestions::Gate::take(PassedFlow flow) {
  if (!entered->isShared()) return false;  // nobody asks any more
  kj::Maybe<const PassedRule&> rule;
  KJ_IF_MAYBE (r, flow.rule) rule = *r;
  auto begun = book.begin(rule);
  KJ_IF_MAYBE (place, begun.tryGet<kj::Own<ChannelBook::Place>>()) {
    entered->place = kj::mv(*place);
    entered->mirror = kj::mv(flow.mirror);
    return true;
  }
  KJ_IF_MAYBE (r, rule) {
    book.refused(r->id);
  } else {
    book.refused("");
  }
  return false;
}

// What posternd has reached for it.
struct ServiceQuestions::Reached {
  kj::Own<Allowed> allowed;
  kj::Own<Entered> entered;
  kj::Own<RelayEnd> end;

  void begin(kj::Own<BulkChannel> bulk) {
    auto& book = allowed->book;
    book.keep(book.run(kj::mv(entered->place), allowed->take(), kj::mv(entered->mirror), kj::mv(bulk), kj::mv(end)));
  }
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
  auto entered = kj::refcounted<Entered>();
  auto gate = kj::heap<Gate>(book, kj::addRef(*entered));
  KJ_IF_MAYBE (asked, ask(channel.id, channel.to, channel.service, kj::mv(gate))) {
    ++open;
    auto waiting = kj::newPromiseAndFulfiller<MaybeReached>();
    // It goes on when the guest gives up: posternd may have opened what has to be told as ended.
    auto reached = reach(kj::mv(channel), kj::mv(entered), kj::mv(*asked))
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

kj::Promise<ServiceQuestions::MaybeReached> ServiceQuestions::reach(KeptChannel channel, kj::Own<Entered> entered,
                                                                    kj::Promise<Answer> asked) {
  return asked.then(
      [this, channel = kj::mv(channel), entered = kj::mv(entered)](Answer answer) mutable -> kj::Promise<MaybeReached> {
        if (!answer.getAllowed()) return MaybeReached(nullptr);
        kj::Maybe<schema::Descriptor::Client> socket;
        if (answer.hasSocket()) socket = answer.getSocket();
        auto allowed = kj::heap<Allowed>(book, kj::mv(channel));
        return takeEnd(book.eventPort(), kj::mv(socket))
            .attach(kj::mv(answer))
            .then([allowed = kj::mv(allowed),
                   entered = kj::mv(entered)](kj::Maybe<kj::Own<RelayEnd>> taken) mutable -> MaybeReached {
              if (entered->place.get() == nullptr) return nullptr;
              KJ_IF_MAYBE (end, taken) {
                allowed->channel.rule = kj::str(entered->place->rule());
                KJ_IF_MAYBE (m, entered->mirror) allowed->channel.mirror = kj::str(m->text);
                return kj::heap(Reached{kj::mv(allowed), kj::mv(entered), kj::mv(*end)});
              }
              return nullptr;
            });
      });
}

// The guest's channel is looked at once posternd has said yes, and not before: what a no costs is the same for all.
bool ServiceQuestions::begin(GuestEnd& guest, const BulkOffer& offer, MaybeReached reached) {
  KJ_IF_MAYBE (target, reached) {
    // Another VM's session may have chosen its id meanwhile.
    if (book.has((*target)->allowed->channel.id)) return false;
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
