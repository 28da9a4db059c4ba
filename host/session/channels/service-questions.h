#pragma once
// ServiceQuestions: what a VM's guest asks of Host.connect: one connection to a service of another VM or of the host.
// posternd decides and reaches the target; here, before that, the channel gets its place at the limits, and after it
// the guest's channel is taken and the bytes are relayed.
//
// No discovery: a guest learns from an answer nothing but yes or no.
//  - Every no is the same, byte by byte: names that are none, what posternd refuses for whatever reason, a limit, too
//  many
//    questions, no posternd.
//  - A no comes DENIAL_STEP after its question arrived or, if it is not known by then, at the next multiple of it.
//  - posternd is asked QUESTIONS_PER_SECOND times a second and MAX_OPEN_QUESTIONS times at a time, whatever a guest
//  does;
//    what is more is a no like any other, and told once a second with a count.
// A guest whose offer breaks the rules of bulk channels, or that has more questions open than a link has channels,
// loses its session.
//
// One loop; outlives the guests that ask.

#include "host/session/channels/passed-flow.h"
#include "host/session/guest-end.h"
#include "host/session/token-bucket.h"

namespace postern::host {

constexpr auto DENIAL_STEP = 100 * kj::MILLISECONDS;
constexpr unsigned QUESTIONS_PER_SECOND = 1000;
constexpr unsigned QUESTIONS_BURST = 2000;
// That posternd has not answered.
constexpr unsigned MAX_OPEN_QUESTIONS = 256;
// That the guest has no answer to: as many as a link has channels for.
constexpr unsigned MAX_UNANSWERED_QUESTIONS = 4096;
// For posternd; its own deadlines are shorter.
constexpr auto QUESTION_PATIENCE = 30 * kj::SECONDS;
constexpr auto TOO_MANY_PERIOD = 1 * kj::SECONDS;

class ServiceQuestions final : private kj::TaskSet::ErrorHandler {
 public:
  using Answer = capnp::Response<schema::SessionObserver::ConnectResults>;
  // Asks posternd; null if none is attached.
  using Entrance = schema::SessionObserver::Entrance;
  using Ask = kj::Function<kj::Maybe<kj::Promise<Answer>>(uint64_t id, kj::StringPtr to, kj::StringPtr service,
                                                          Entrance::Client entrance)>;

  // `book` outlives this.
  ServiceQuestions(ChannelBook& book, Ask ask);
  ~ServiceQuestions() noexcept(false);
  KJ_DISALLOW_COPY(ServiceQuestions);

  // As GuestEnd::Handler::connect(): resolves when it is to be answered.
  kj::Promise<bool> connect(GuestEnd& guest, kj::Maybe<ServiceQuestion> question);
  // That posternd has not answered.
  unsigned openQuestions() const { return open; }

 private:
  class Allowed;
  struct Entered;
  class Gate;
  struct Reached;
  using MaybeReached = kj::Maybe<kj::Own<Reached>>;

  ChannelBook& book;
  kj::Timer& timer;
  Ask ask;
  TokenBucket bucket{QUESTIONS_PER_SECOND, QUESTIONS_BURST};
  unsigned open = 0;
  unsigned unanswered = 0;
  uint32_t tooMany = 0;  // since it was told last
  kj::TaskSet tasks;

  bool isTooMany();
  kj::Promise<MaybeReached> decide(ServiceQuestion& question);
  kj::Promise<MaybeReached> reach(KeptChannel channel, kj::Own<Entered> entered, kj::Promise<Answer> asked);
  bool begin(GuestEnd& guest, const BulkOffer& offer, MaybeReached reached);
  kj::Promise<bool> deny(kj::TimePoint arrived);
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::host
