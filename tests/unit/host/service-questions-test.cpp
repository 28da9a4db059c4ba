// What a guest asks of the host: connections to services of the host and of other VMs, over a real link, with a
// posternd that says what the test wants.

#include "host/session/channels/service-questions.h"

#include <capnp/any.h>

#include "tests/unit/host/channel-fixture.h"

namespace postern::host {
namespace {

namespace wire = postern::schema;
using test::ChannelLab;
using test::LimitOf;
using test::Posternd;
using test::TestSocket;
using test::ToldOfChannels;
using HostAnswer = capnp::Response<wire::Host::ConnectResults>;
using AnswerPromise = kj::Promise<HostAnswer>;

constexpr auto MS = kj::MILLISECONDS;

class Lab : public ChannelLab {
 public:
  kj::WaitScope& waitScope() { return io.waitScope; }
  // At once, as the clock stands still.
  bool isYes(Question& question) {
    if (!soon([&]() { return question.answer.poll(io.waitScope); })) return false;
    return !question.answer.wait(io.waitScope).hasRefusal();
  }
  void denyQuestions() {
    told().onConnect = [](ToldOfChannels::ConnectContext) -> kj::Promise<void> { return kj::READY_NOW; };
  }
  void neverAnswer() {
    told().onConnect = [](ToldOfChannels::ConnectContext) -> kj::Promise<void> { return kj::NEVER_DONE; };
  }
  const ToldOfChannels::Closed* closing(size_t count = 1) {
    if (!soon([&]() {
          tellAll();
          return told().closed.size() >= count;
        })) {
      return nullptr;
    }
    return &told().closed.begin()->second;
  }
  uint64_t received() { return guestSession().bytesReceived(); }
};

TEST_CASE("a guest reaches a service of the host: bytes go both ways, and count as out of the VM towards the service") {
  Lab lab;
  TestSocket target;
  lab.allowQuestions(target);
  auto question = lab.askHost("host", "apt-cache");
  REQUIRE(lab.isYes(question));
  lab.write(*question.channel, "GET /");
  CHECK(lab.readSoon(target, 5) == "GET /");
  target.write("package");
  CHECK(lab.read(*question.channel, 7) == "package");
  target.finish();
  CHECK((lab.endOf(*question.channel) == BulkEnd::FINISHED));
  lab.write(*question.channel, "more");
  question.channel->finish();
  CHECK(lab.readSoon(target, 4) == "more");
  auto* closed = lab.closing();
  REQUIRE(closed != nullptr);
  CHECK((closed->why == "finished"));
  CHECK(closed->traffic.bytesThere == 9);
  CHECK(closed->traffic.messagesThere == 2);
  CHECK(closed->traffic.bytesBack == 7);
  CHECK(closed->countersBefore > 0);
  CHECK(lab.told().port.traffic.bytesThere == 9);
  CHECK(lab.told().port.traffic.bytesBack == 7);
  CHECK(lab.told().port.opened == 1);
  CHECK(lab.told().port.active == 0);
  CHECK(lab.told().rules.at("r").traffic.bytesThere == 9);
  CHECK(lab.told().opened.empty());  // that is for programs of the host
}

TEST_CASE("to another VM it is relayed to that VM's session, packet by packet") {
  Lab lab;
  TestSocket hop;
  lab.allowQuestions(hop, SOCK_SEQPACKET);
  auto question = lab.askHost("db1", "postgres");
  REQUIRE(lab.isYes(question));
  lab.write(*question.channel, "select");
  CHECK(lab.readSoon(hop, 7) == std::string("\0select", 7));
  hop.write(kj::StringPtr("\0rows", 5));
  CHECK(lab.read(*question.channel, 4) == "rows");
  question.channel->reset();
  CHECK(lab.readSoon(hop, 1) == "\2");
  CHECK((lab.closing()->why == "reset"));
}

// Answers that are no -----------------------------------------------------------------------------------------------

// What a guest can see of an answer that is no: when it came, what it says, and how many bytes came on the link.
struct Seen {
  kj::Duration after;
  kj::Array<capnp::word> words;
  uint64_t bytes;
};

Seen seeDenial(Lab& lab, AnswerPromise answer, kj::TimePoint asked, uint64_t before) {
  for (int i = 0; i < 40 && !answer.poll(lab.waitScope()); ++i) {
    usleep(300);
    lab.settle();
    if (!answer.poll(lab.waitScope())) lab.advance(10 * MS);
  }
  REQUIRE(answer.poll(lab.waitScope()));
  auto after = lab.timer.now() - asked;
  auto response = answer.wait(lab.waitScope());
  REQUIRE(response.hasRefusal());
  CHECK((response.getRefusal().getReason() == wire::Refusal::Reason::DENIED));
  CHECK(response.getRefusal().getDetail().size() == 0);
  CHECK(response.getRefusal().getRule().size() == 0);
  CHECK(response.getRefusal().getSuggestion().size() == 0);
  return {after, capnp::canonicalize(wire::Host::ConnectResults::Reader(response)), lab.received() - before};
}
Seen seeDenial(Lab& lab, kj::StringPtr to, kj::StringPtr service) {
  auto asked = lab.timer.now();
  auto before = lab.received();
  auto question = lab.askHost(to, service);
  return seeDenial(lab, kj::mv(question.answer), asked, before);
}
// `to` is bytes that are no text.
Seen seeDenialOfNoText(Lab& lab) {
  auto asked = lab.timer.now();
  auto before = lab.received();
  auto host = lab.linked.guest.host();
  auto request = host.typelessRequest(capnp::typeId<wire::Host>(), 2, nullptr);
  auto params = request.initAsAnyStruct(1, 2);
  params.getPointerSection()[0].setAs<capnp::Data>("abc"_kj.asBytes());
  params.getPointerSection()[1].setAs<capnp::Data>("http"_kj.asBytes());
  auto answer = request.send().then([](capnp::Response<capnp::AnyPointer>&& response) {
    capnp::MallocMessageBuilder copy;
    copy.setRoot(response.getAs<wire::Host::ConnectResults>());
    return capnp::canonicalize(copy.getRoot<wire::Host::ConnectResults>().asReader());
  });
  auto kept = answer.eagerlyEvaluate(nullptr);
  for (int i = 0; i < 40 && !kept.poll(lab.waitScope()); ++i) {
    usleep(300);
    lab.settle();
    if (!kept.poll(lab.waitScope())) lab.advance(10 * MS);
  }
  REQUIRE(kept.poll(lab.waitScope()));
  auto after = lab.timer.now() - asked;
  return {after, kept.wait(lab.waitScope()), lab.received() - before};
}

// T106
TEST_CASE("every no is the same, byte by byte and in time, whatever it is for") {
  Lab lab;
  lab.denyQuestions();
  auto first = seeDenial(lab, "db1", "postgres");
  CHECK((first.after == DENIAL_STEP));
  auto same = [&](const char* what, Seen seen) {
    CHECK_MESSAGE((seen.after == first.after), what);
    CHECK_MESSAGE((seen.words.asBytes() == first.words.asBytes()), what);
    CHECK_MESSAGE(seen.bytes == first.bytes, what);
  };
  same("another", seeDenial(lab, "host", "x"));
  auto asked = lab.told().asked;
  // Names that are none: posternd is not asked.
  same("no target", seeDenial(lab, "", "postgres"));
  same("any", seeDenial(lab, "any", "postgres"));
  same("a path", seeDenial(lab, "../db1", "postgres"));
  same("no service", seeDenial(lab, "db1", ""));
  same("a dot", seeDenial(lab, "db1", "post.gres"));
  same("control characters", seeDenial(lab, "db1\n", "\x1b[31m"));
  same("much", seeDenial(lab, kj::str(kj::repeat('a', 100'000)), "postgres"));
  same("no text", seeDenialOfNoText(lab));
  CHECK(lab.told().asked == asked);

  lab.told().onConnect = [](ToldOfChannels::ConnectContext) -> kj::Promise<void> {
    return KJ_EXCEPTION(FAILED, "a secret of posternd");
  };
  same("posternd fails", seeDenial(lab, "db1", "postgres"));
  lab.told().onConnect = [](ToldOfChannels::ConnectContext context) -> kj::Promise<void> {
    context.getResults().setAllowed(true);
    return kj::READY_NOW;
  };
  same("nothing is passed", seeDenial(lab, "db1", "postgres"));
  TestSocket target;
  lab.allowQuestions(target, SOCK_DGRAM);
  same("a socket of another kind", seeDenial(lab, "db1", "postgres"));
  lab.allowQuestions(target, SOCK_STREAM, LimitOf{0, 0, 0, 0, 0, /* zero: open */ 8});
  same("a limit of the rule", seeDenial(lab, "db1", "postgres"));
  lab.allowQuestions(target, SOCK_STREAM, {}, LimitOf{/* rate */ 0, 0, 0, 0, 0, /* zero: calls */ 16});
  same("a limit of the port", seeDenial(lab, "db1", "postgres"));
  lab.allowQuestions(target, SOCK_STREAM, {}, LimitOf{});
  auto open = lab.askHost("db1", "postgres");
  CHECK(lab.isYes(open));
  lab.posternd = nullptr;
  lab.settle();
  same("no posternd", seeDenial(lab, "db1", "postgres"));
  lab.write(*open.channel, "on");
  CHECK(lab.readSoon(target, 2) == "on");
}

// T106
TEST_CASE("a no that is known late comes at the next multiple of the step, and a yes at once") {
  Lab lab;
  kj::Own<kj::PromiseFulfiller<bool>> fulfiller;
  lab.told().onConnect = [&](ToldOfChannels::ConnectContext) -> kj::Promise<void> {
    auto paf = kj::newPromiseAndFulfiller<bool>();
    fulfiller = kj::mv(paf.fulfiller);
    return paf.promise.ignoreResult();
  };
  for (auto [known, answered] : {std::pair(1, 100), std::pair(99, 100), std::pair(101, 200), std::pair(230, 300)}) {
    auto asked = lab.timer.now();
    auto question = lab.askHost("db1", "postgres");
    REQUIRE(lab.soon([&]() { return fulfiller.get() != nullptr; }));
    lab.advance(known * MS);
    auto sent = kj::mv(fulfiller);
    sent->fulfill(false);
    lab.turn();
    CHECK_FALSE(question.answer.poll(lab.waitScope()));
    lab.timer.advanceTo(asked + answered * MS - 1 * MS);
    lab.turn();
    CHECK_FALSE(question.answer.poll(lab.waitScope()));
    lab.advance(1 * MS);
    CHECK(lab.soon([&]() { return question.answer.poll(lab.waitScope()); }));
  }
}

// T107
TEST_CASE("a flood of questions: posternd is asked so many, all get the same no at the same time, and one line tells") {
  Lab lab;
  constexpr unsigned MANY = QUESTIONS_BURST + 1500;
  lab.denyQuestions();
  auto asked = lab.timer.now();
  kj::Vector<AnswerPromise> answers;
  for (unsigned i = 0; i < MANY; ++i) {
    answers.add(lab.sendQuestion("db1", "postgres", BulkOffer{2 * i + 1, 0}));
    REQUIRE(lab.linked.guest.isIn());
  }
  lab.turn();
  CHECK(lab.told().asked == QUESTIONS_BURST);
  for (auto& answer : answers) CHECK_FALSE(answer.poll(lab.waitScope()));
  CHECK(lab.timer.now() == asked);
  lab.advance(DENIAL_STEP);
  CHECK(lab.soon([&]() {
    for (auto& answer : answers) {
      if (!answer.poll(lab.waitScope())) return false;
    }
    return true;
  }));
  for (auto& answer : answers) CHECK(answer.wait(lab.waitScope()).hasRefusal());
  lab.advance(1 * kj::SECONDS);
  lab.tellAll();
  REQUIRE(lab.told().refused.size() == 1);
  CHECK((lab.told().refused[0] == kj::str("0 : too many questions x", MANY - QUESTIONS_BURST)));
  CHECK(lab.told().port.refused == MANY - QUESTIONS_BURST);
  CHECK(lab.beat(lab.linked.guest, lab.agent) != 0);
  // Later it may ask again, so many a second.
  auto before = lab.told().asked;
  lab.advance(10 * kj::SECONDS);
  auto again = lab.askHost("db1", "postgres");
  lab.turn();
  CHECK(lab.told().asked == before + 1);
}

// T107
TEST_CASE("of questions that posternd does not answer there are so many; the others are told no in time") {
  Lab lab;
  lab.neverAnswer();
  kj::Vector<AnswerPromise> answers;
  for (unsigned i = 0; i < MAX_OPEN_QUESTIONS + 10; ++i) {
    answers.add(lab.sendQuestion("db1", "postgres", BulkOffer{2 * i + 1, 0}));
  }
  lab.turn();
  CHECK(lab.told().asked == MAX_OPEN_QUESTIONS);
  lab.advance(DENIAL_STEP);
  lab.turn();
  unsigned answered = 0;
  for (auto& answer : answers) answered += answer.poll(lab.waitScope());
  CHECK(answered == 10);
  lab.advance(QUESTION_PATIENCE);
  lab.advance(DENIAL_STEP);
  lab.turn();
  answered = 0;
  for (auto& answer : answers) answered += answer.poll(lab.waitScope());
  CHECK(answered == answers.size());
  // They are posternd's until it has answered, or gone.
  auto more = lab.askHost("db1", "postgres");
  lab.turn();
  CHECK(lab.told().asked == MAX_OPEN_QUESTIONS);
  lab.posternd = nullptr;
  lab.settle();
  lab.posternd = kj::heap<Posternd>(lab);
  auto next = lab.askHost("db1", "postgres");
  lab.turn();
  CHECK(lab.told().asked == 1);
}

// T107
TEST_CASE("a guest with more questions than a link has channels for loses its session") {
  Lab lab;
  lab.denyQuestions();
  kj::Vector<AnswerPromise> answers;
  for (unsigned i = 0; i <= MAX_UNANSWERED_QUESTIONS && lab.linked.guest.isIn(); ++i) {
    answers.add(lab.sendQuestion("db1", "postgres", BulkOffer{2 * i + 1, 0}));
  }
  CHECK(lab.soon([&]() { return lab.linked.guest.isOut(); }));
  CHECK((KJ_REQUIRE_NONNULL(lab.linked.guest.closeCode()) == CloseCode::RESOURCE_LIMIT));
}

TEST_CASE(
    "an offer that breaks the rules of bulk channels ends the session if the answer were yes, and else is no news") {
  for (auto offer : {BulkOffer{0, 0}, BulkOffer{2, 0}, BulkOffer{1, (1 << 20) + 1}}) {
    Lab lab;
    lab.denyQuestions();
    auto answer = lab.sendQuestion("db1", "postgres", offer);
    lab.turn();
    lab.advance(DENIAL_STEP);
    CHECK(lab.take(kj::mv(answer)).hasRefusal());
    CHECK(lab.linked.guest.isIn());
    TestSocket target;
    lab.allowQuestions(target);
    auto broken = lab.sendQuestion("db1", "postgres", offer);
    CHECK(lab.soon([&]() { return lab.linked.guest.isOut(); }));
    CHECK((KJ_REQUIRE_NONNULL(lab.linked.guest.closeCode()) == CloseCode::PROTOCOL_ERROR));
    CHECK(lab.soon([&]() { return target.isOver(); }));
    CHECK((lab.closing()->why == "reset"));
    CHECK(lab.told().port.opened == 0);
  }
  Lab lab;
  TestSocket first, second;
  lab.allowQuestions(first);
  auto question = lab.askHost("db1", "postgres");
  REQUIRE(lab.isYes(question));
  lab.allowQuestions(second);
  auto twice = lab.sendQuestion("db1", "postgres", BulkOffer{question.channel->number(), 0});
  CHECK(lab.soon([&]() { return lab.linked.guest.isOut(); }));
  CHECK(lab.soon([&]() { return first.isOver() && second.isOver(); }));
}

TEST_CASE("what posternd reaches for a guest that has given up, or is gone, is ended, and told as ended") {
  Lab lab;
  kj::Own<kj::PromiseFulfiller<void>> go;
  TestSocket target;
  auto slowly = [&]() {
    lab.allowQuestions(target);
    auto allow = kj::mv(lab.told().onConnect);
    lab.told().onConnect = [&, allow = kj::mv(allow)](ToldOfChannels::ConnectContext context) mutable {
      auto paf = kj::newPromiseAndFulfiller<void>();
      go = kj::mv(paf.fulfiller);
      return paf.promise.then([&allow, context]() mutable { return allow(context); });
    };
  };
  slowly();
  {
    auto question = lab.askHost("db1", "postgres");
    REQUIRE(lab.soon([&]() { return go.get() != nullptr; }));
  }
  lab.settle();
  go->fulfill();
  REQUIRE(lab.soon([&]() { return target.fd != nullptr; }));
  CHECK(lab.soon([&]() { return target.isOver(); }));
  CHECK((lab.closing()->why == "reset"));
  // And one whose link ends meanwhile.
  target.fd = nullptr;
  go = nullptr;
  auto question = lab.askHost("db1", "postgres");
  REQUIRE(lab.soon([&]() { return go.get() != nullptr; }));
  question.channel = nullptr;
  lab.kill(lab.linked.guest);
  go->fulfill();
  REQUIRE(lab.soon([&]() { return target.fd != nullptr; }));
  CHECK(lab.soon([&]() { return target.isOver(); }));
  CHECK(lab.closing(2) != nullptr);
  CHECK(lab.told().port.active == 0);
}

TEST_CASE("a yes for an id that another VM's session has chosen meanwhile is a no, and costs that channel nothing") {
  Lab lab;
  TestSocket target, hop;
  uint64_t id = 0;
  auto go = kj::newPromiseAndFulfiller<void>();
  lab.allowQuestions(target);
  auto allow = kj::mv(lab.told().onConnect);
  lab.told().onConnect = [&](ToldOfChannels::ConnectContext context) {
    id = context.getParams().getId();
    return go.promise.then([&allow, context]() mutable { return allow(context); });
  };
  auto question = lab.askHost("db1", "postgres");
  REQUIRE(lab.soon([&]() { return id != 0; }));
  REQUIRE((lab.take(lab.serve(hop, id)) == schema::ServeOutcome::REACHED));
  go.fulfiller->fulfill();
  REQUIRE(lab.soon([&]() { return target.fd != nullptr && target.isOver(); }));
  lab.advance(DENIAL_STEP);
  CHECK_FALSE(lab.isYes(question));
  lab.write(*lab.guest.channels[0], "rows");
  CHECK(lab.readSoon(hop, 5) == std::string("\0rows", 5));
}

TEST_CASE("a process does not retire while a channel is being opened, or posternd has not heard of an end") {
  Lab lab;
  auto retires = [&]() { return lab.take(lab.posternd->control.retireRequest().send()).getAgreed(); };
  TestSocket target;
  SUBCASE("a question that posternd has not answered") {
    lab.neverAnswer();
    auto question = lab.askHost("db1", "postgres");
    REQUIRE(lab.soon([&]() { return lab.told().asked == 1; }));
    CHECK_FALSE(retires());
  }
  SUBCASE("a channel that the guest has not answered for") {
    lab.guest.answer = test::ServingGuest::Answer::NEVER;
    auto serving = lab.serve(target);
    REQUIRE(lab.soon([&]() { return lab.guest.asked.size() == 1; }));
    CHECK_FALSE(retires());
  }
  SUBCASE("an end that posternd has not heard") {
    lab.posternd = kj::heap<Posternd>(lab, /* answers */ false);
    lab.allowQuestions(target);
    auto question = lab.askHost("db1", "postgres");
    REQUIRE(lab.isYes(question));
    question.channel->reset();
    REQUIRE(lab.soon([&]() { return target.isOver(); }));
    CHECK_FALSE(retires());
  }
  CHECK_FALSE(lab.running.poll(lab.io.waitScope));
}

// T104
TEST_CASE("a limit says no before anything is reached, and a place comes free when posternd says no after it") {
  Lab lab;
  TestSocket first, second;
  lab.allowQuestions(first, SOCK_STREAM, LimitOf{0, 0, /* open */ 2});
  auto question = lab.askHost("db1", "postgres");
  REQUIRE(lab.isYes(question));
  lab.told().onConnect = [](ToldOfChannels::ConnectContext context) -> kj::Promise<void> {
    auto entering = context.getParams().getEntrance().enterRequest();
    entering.initFlow().setRule("r");
    LimitOf{0, 0, /* open */ 2}.write(entering.getFlow().initLimit(), "r");
    return entering.send().then([](auto answer) { CHECK(answer.getEntered()); });
  };
  for (int i = 0; i < 3; ++i) {
    auto unreached = lab.askHost("db1", "postgres");
    lab.turn();
    lab.advance(DENIAL_STEP);
    CHECK_FALSE(lab.isYes(unreached));
  }
  CHECK(lab.told().closed.empty());
  lab.allowQuestions(second, SOCK_STREAM, LimitOf{0, 0, /* open */ 1});
  auto refused = lab.askHost("db1", "postgres");
  lab.turn();
  CHECK((second.fd == nullptr));
  CHECK_FALSE(first.isOver());
  lab.advance(DENIAL_STEP);
  CHECK_FALSE(lab.isYes(refused));
  CHECK(lab.told().rules.at("r").refused == 1);
  CHECK(lab.told().rules.at("r").active == 1);
}

// Without posternd --------------------------------------------------------------------------------------------------

TEST_CASE("a guest's channels outlive posternd: the next one finds them, and cuts those that it does not allow") {
  Lab lab;
  TestSocket kept, cut;
  lab.allowQuestions(kept, SOCK_SEQPACKET);
  auto first = lab.askHost("db1", "postgres");
  REQUIRE(lab.isYes(first));
  lab.allowQuestions(cut);
  auto second = lab.askHost("host", "apt");
  REQUIRE(lab.isYes(second));
  lab.advance(5 * kj::SECONDS);
  lab.posternd = nullptr;
  lab.settle();
  lab.advance(ABANDONED - 1 * kj::SECONDS);
  lab.posternd = kj::heap<Posternd>(lab);
  auto channels = KJ_REQUIRE_NONNULL(lab.posternd->attached).getChannels();
  REQUIRE(channels.size() == 2);
  uint64_t cutId = 0, keptId = 0;
  for (auto channel : channels) {
    CHECK(channel.getAsked());
    CHECK((channel.getRule() == "r"));
    CHECK(channel.getOpenForMilliseconds() == 64'000);
    bool isKept = channel.getTo() == "db1";
    CHECK((channel.getService() == (isKept ? "postgres" : "apt")));
    (isKept ? keptId : cutId) = channel.getId();
  }
  // Counters go on, and are told at once.
  lab.tellAll();
  CHECK(lab.told().port.active == 2);
  lab.advance(10 * ABANDONED);
  auto request = lab.posternd->control.cutChannelsRequest();
  request.setIds({cutId});
  lab.take(request.send().ignoreResult());
  CHECK(lab.soon([&]() { return cut.isOver(); }));
  CHECK((lab.closing()->why == "cut"));
  lab.write(*first.channel, "on");
  CHECK(lab.readSoon(kept, 3) == std::string("\0on", 3));
  CHECK(lab.told().closed.count(keptId) == 0);
}

TEST_CASE(
    "channels end when no posternd has come for a minute; the next one finds them in the list, and hears the end") {
  Lab lab;
  TestSocket target;
  lab.allowQuestions(target);
  auto question = lab.askHost("host", "apt");
  REQUIRE(lab.isYes(question));
  lab.write(*question.channel, "hello");
  CHECK(lab.readSoon(target, 5) == "hello");
  lab.posternd = nullptr;
  lab.settle();
  lab.advance(ABANDONED - 1 * kj::SECONDS);
  CHECK_FALSE(target.isOver());
  lab.advance(2 * kj::SECONDS);
  CHECK(lab.soon([&]() { return target.isOver(); }));
  CHECK((lab.endOf(*question.channel) == BulkEnd::RESET));
  lab.posternd = kj::heap<Posternd>(lab);
  auto channels = KJ_REQUIRE_NONNULL(lab.posternd->attached).getChannels();
  REQUIRE(channels.size() == 1);
  CHECK((channels[0].getService() == "apt"));
  auto id = channels[0].getId();
  CHECK(lab.told().closed.empty());
  auto* closed = lab.closing();
  REQUIRE(closed != nullptr);
  CHECK((closed->why == "cut"));
  CHECK(closed->traffic.bytesThere == 5);
  CHECK(lab.told().closed.count(id) == 1);
  // Once it was heard, nobody hears it again.
  lab.posternd = nullptr;
  lab.settle();
  lab.posternd = kj::heap<Posternd>(lab);
  CHECK(KJ_REQUIRE_NONNULL(lab.posternd->attached).getChannels().size() == 0);
  lab.tellAll();
  CHECK(lab.told().closed.empty());
}

}  // namespace
}  // namespace postern::host
