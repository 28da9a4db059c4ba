#include "tests/integration/hostile-channels.h"

#include <capnp/message.h>
#include <capnp/rpc.capnp.h>
#include <capnp/schema.h>
#include <kj/debug.h>
#include <kj/encoding.h>

#include <fstream>
#include <string>
#include <vector>

#include "protocol/limits.h"

namespace postern::test {

namespace {

namespace rpc = capnp::rpc;

constexpr unsigned PROBES_AT_A_TIME = 32;
constexpr unsigned OUTSTANDING = 2000;
constexpr uint16_t CONNECT_METHOD = 2;  // of Host
constexpr auto PATIENCE = 10 * kj::SECONDS;

// Probing ----------------------------------------------------------------------------------------------------------

struct Probe {
  std::string kind, to, service;
};

struct Asked {
  size_t probe;
  uint64_t began;
  kj::Own<BulkChannel> channel;
};

uint64_t nowNanoseconds() {
  timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<uint64_t>(time.tv_sec) * 1'000'000'000 + static_cast<uint64_t>(time.tv_nsec);
}

std::vector<Probe> readPlan(kj::StringPtr folder) {
  std::ifstream file(kj::str(folder, "/plan").cStr());
  std::vector<Probe> plan;
  for (Probe probe; file >> probe.kind >> probe.to >> probe.service;) plan.push_back(probe);
  return plan;
}

class Prober {
 public:
  Prober(kj::AsyncIoContext& io, Session& session, kj::StringPtr folder)
      : io(io), session(session), plan(readPlan(folder)), answers(kj::str(folder, "/answers").cStr()) {}

  uint64_t run() {
    capnp::MallocMessageBuilder first;
    first.initRoot<rpc::Message>().initBootstrap().setQuestionId(0);
    send(first);
    for (size_t next = 0; next < plan.size();) {
      for (uint32_t question = 1; question <= PROBES_AT_A_TIME && next < plan.size(); ++question) ask(question, next++);
      while (!asked.empty()) takeMessage();
    }
    return received;
  }

 private:
  kj::AsyncIoContext& io;
  Session& session;
  const std::vector<Probe> plan;
  std::ofstream answers;
  std::unordered_map<uint32_t, Asked> asked;
  uint64_t received = 0;

  void send(capnp::MessageBuilder& message) { session.rpcStream().writeMessage(message).wait(io.waitScope); }

  void ask(uint32_t question, size_t probe) {
    auto opened = KJ_ASSERT_NONNULL(session.bulk().open());
    capnp::MallocMessageBuilder message;
    auto call = message.initRoot<rpc::Message>().initCall();
    call.setQuestionId(question);
    call.initTarget().initPromisedAnswer().setQuestionId(0);
    call.setInterfaceId(capnp::typeId<schema::Host>());
    call.setMethodId(CONNECT_METHOD);
    auto params = call.initParams().initContent().initAs<schema::Host::ConnectParams>();
    params.setTo(plan[probe].to.c_str());
    params.setService(plan[probe].service.c_str());
    params.setChannel(opened.offer.channel);
    params.setCredit(opened.offer.credit);
    asked[question] = {probe, nowNanoseconds(), kj::mv(opened.channel)};
    send(message);
  }

  // Of the host's messages only the answers count; its own questions stay without.
  void takeMessage() {
    auto message = session.rpcStream()
                       .tryReadMessage()
                       .exclusiveJoin(io.provider->getTimer().afterDelay(PATIENCE).then(
                           []() -> kj::Maybe<kj::Own<capnp::MessageReader>> { return nullptr; }))
                       .wait(io.waitScope);
    auto& reader = *KJ_REQUIRE_NONNULL(message, "an answer is missing");
    auto root = reader.getRoot<rpc::Message>();
    if (!root.isReturn()) return;
    auto found = asked.find(root.getReturn().getAnswerId());
    if (found == asked.end()) return;  // of the bootstrap
    write(found->second, found->first, reader);
    finish(found->first);
    asked.erase(found);
    ++received;
  }

  void write(const Asked& answered, uint32_t question, capnp::MessageReader& reader) {
    auto& kind = plan[answered.probe].kind;
    answers << kind << ' ' << question << ' ' << nowNanoseconds() - answered.began << ' ';
    for (unsigned i = 0;; ++i) {
      auto segment = reader.getSegment(i);
      if (segment == nullptr) break;
      answers << kj::encodeHex(segment.asBytes()).cStr() << '.';
    }
    answers << '\n';
  }

  void finish(uint32_t question) {
    capnp::MallocMessageBuilder message;
    auto finish = message.initRoot<rpc::Message>().initFinish();
    finish.setQuestionId(question);
    finish.setReleaseResultCaps(true);
    send(message);
  }
};

// Asking -----------------------------------------------------------------------------------------------------------

auto question(Asking& asking, const BulkOffer& offer, const Wanted& wanted) {
  auto request = asking.host.connectRequest();
  request.setTo(wanted.to);
  request.setService(wanted.service);
  request.setChannel(offer.channel);
  request.setCredit(offer.credit);
  return request.send();
}

bool isBareDenial(schema::Refusal::Reader refusal) {
  return refusal.getReason() == schema::Refusal::Reason::DENIED && !refusal.hasDetail() && !refusal.hasRule() &&
         !refusal.hasSuggestion();
}

void turn(Asking& asking) {
  asking.io.provider->getTimer().afterDelay(1 * kj::MILLISECONDS).wait(asking.io.waitScope);
}

// Serving ----------------------------------------------------------------------------------------------------------

kj::String evilText(size_t size) {
  return kj::str("\033]0;owned\007\033[2J\r\n\x01\x7f", kj::repeat('x', size));
}

kj::Promise<void> drain(BulkChannel& channel) {
  return channel.read().then([&channel](kj::OneOf<BulkChunk, BulkEnd> got) -> kj::Promise<void> {
    if (got.is<BulkEnd>()) return kj::READY_NOW;
    return drain(channel);
  });
}

// Pieces of this size until the other end has enough.
kj::Promise<void> pour(BulkChannel& channel, kj::ArrayPtr<const kj::byte> piece) {
  return channel.write(piece).then([&channel, piece](bool goesOn) -> kj::Promise<void> {
    if (!goesOn) return kj::READY_NOW;
    return pour(channel, piece);
  });
}

constexpr kj::byte PIECE[32768] = {};

enum class Answer : uint8_t { REACHED, NEVER, EVIL_REFUSAL, NONSENSE_REFUSAL, THROWS, HANGS_UP };

struct Trick {
  kj::StringPtr name;
  Answer answer;
  // On the channel, if it is accepted at all.
  kj::Promise<void> (*play)(BulkChannel& channel);
};

constexpr Trick TRICKS[] = {
    {"never-accepts"_kj, Answer::REACHED, nullptr},
    {"never-answers"_kj, Answer::NEVER, nullptr},
    {"refuses"_kj, Answer::EVIL_REFUSAL, nullptr},
    {"refuses-nonsense"_kj, Answer::NONSENSE_REFUSAL, nullptr},
    {"throws"_kj, Answer::THROWS, nullptr},
    {"hangs-up"_kj, Answer::HANGS_UP, nullptr},
    {"never-reads"_kj, Answer::REACHED, [](BulkChannel&) -> kj::Promise<void> { return kj::NEVER_DONE; }},
    {"resets-first"_kj, Answer::NEVER,
     [](BulkChannel& channel) -> kj::Promise<void> {
       channel.reset();
       return kj::NEVER_DONE;
     }},
    {"resets-at-once"_kj, Answer::REACHED,
     [](BulkChannel& channel) -> kj::Promise<void> {
       channel.reset();
       return kj::READY_NOW;
     }},
    {"resets-later"_kj, Answer::REACHED,
     [](BulkChannel& channel) -> kj::Promise<void> {
       return channel.read().then([&channel](kj::OneOf<BulkChunk, BulkEnd>) { channel.reset(); });
     }},
    {"finishes"_kj, Answer::REACHED,
     [](BulkChannel& channel) -> kj::Promise<void> {
       channel.finish();
       return kj::NEVER_DONE;
     }},
    {"finishes-and-reads"_kj, Answer::REACHED,
     [](BulkChannel& channel) -> kj::Promise<void> {
       channel.finish();
       return drain(channel);
     }},
    {"pours"_kj, Answer::REACHED, [](BulkChannel& channel) -> kj::Promise<void> { return pour(channel, PIECE); }},
    {"crumbles"_kj, Answer::REACHED,
     [](BulkChannel& channel) -> kj::Promise<void> { return pour(channel, kj::arrayPtr(PIECE, 1)); }},
    {"pours-and-refuses"_kj, Answer::EVIL_REFUSAL,
     [](BulkChannel& channel) -> kj::Promise<void> { return pour(channel, PIECE); }},
};

kj::Maybe<const Trick&> find(kj::StringPtr name) {
  for (auto& trick : TRICKS) {
    if (trick.name == name) return trick;
  }
  return nullptr;
}

kj::Promise<void> answer(Answer how, kj::Function<void()>& hangUp, ConnectContext context) {
  switch (how) {
    case Answer::REACHED:
      return kj::READY_NOW;
    case Answer::HANGS_UP:
      hangUp();
      return kj::NEVER_DONE;
    case Answer::NEVER:
      return kj::NEVER_DONE;
    case Answer::THROWS:
      return KJ_EXCEPTION(FAILED, "\033[2J evil \n exception");
    case Answer::EVIL_REFUSAL:
    case Answer::NONSENSE_REFUSAL: {
      auto refusal = context.getResults().initRefusal();
      refusal.setReason(how == Answer::EVIL_REFUSAL ? schema::Refusal::Reason::DENIED
                                                    : static_cast<schema::Refusal::Reason>(60'000));
      refusal.setDetail(evilText(4000));
      refusal.setRule(evilText(300));
      refusal.setSuggestion(evilText(6000));
      return kj::READY_NOW;
    }
  }
  return kj::READY_NOW;
}

}  // namespace

uint64_t probeChannels(kj::AsyncIoContext& io, Session& session, kj::StringPtr folder) {
  return Prober(io, session, folder).run();
}

uint64_t floodWithQuestions(Asking asking, uint64_t count, const Wanted& wanted) {
  uint64_t denied = 0;
  unsigned outstanding = 0;
  kj::Vector<kj::Promise<void>> asked;
  for (uint64_t sent = 0; sent < count; ++sent) {
    while (outstanding >= OUTSTANDING) turn(asking);
    KJ_IF_MAYBE (opened, asking.bulk.open()) {
      ++outstanding;
      asked.add(question(asking, opened->offer, wanted)
                    .then([&denied](auto answer) { denied += isBareDenial(answer.getRefusal()); })
                    .catch_([](kj::Exception&&) {})
                    .then([&outstanding]() { --outstanding; })
                    .attach(kj::mv(opened->channel))
                    .eagerlyEvaluate(nullptr));
    }
  }
  while (outstanding > 0) turn(asking);
  return denied;
}

void offerBadChannel(Asking asking, unsigned which, const Wanted& wanted) {
  auto opened = KJ_ASSERT_NONNULL(asking.bulk.open());
  const uint32_t good = opened.offer.channel;
  const BulkOffer offers[BAD_OFFERS] = {
      {0, limits::BULK_WINDOW_FIRST},
      {2, limits::BULK_WINDOW_FIRST},  // a number of the host's
      {0xffffffff, limits::BULK_WINDOW_FIRST},
      {good, 0},
      {good, 0xffffffff},
      {good + 100, limits::BULK_WINDOW_FIRST},  // not opened yet
  };
  auto& timer = asking.io.provider->getTimer();
  question(asking, offers[which], wanted)
      .ignoreResult()
      .catch_([](kj::Exception&&) {})
      .exclusiveJoin(timer.afterDelay(PATIENCE))
      .wait(asking.io.waitScope);
  // And once more, should that one be alive now.
  question(asking, offers[which], wanted)
      .ignoreResult()
      .catch_([](kj::Exception&&) {})
      .exclusiveJoin(timer.afterDelay(PATIENCE))
      .wait(asking.io.waitScope);
}

kj::Vector<kj::Own<BulkChannel>> openCrowd(Asking asking, uint64_t count, const Wanted& wanted) {
  kj::Vector<kj::Own<BulkChannel>> crowd;
  unsigned outstanding = 0;
  kj::Vector<kj::Promise<void>> asked;
  for (uint64_t i = 0; i < count; ++i) {
    while (outstanding >= 100) turn(asking);
    KJ_IF_MAYBE (opened, asking.bulk.open()) {
      ++outstanding;
      asked.add(question(asking, opened->offer, wanted)
                    .then([&crowd, channel = kj::mv(opened->channel)](auto answer) mutable {
                      if (!answer.hasRefusal()) crowd.add(kj::mv(channel));
                    })
                    .catch_([](kj::Exception&&) {})
                    .then([&outstanding]() { --outstanding; })
                    .eagerlyEvaluate(nullptr));
    }
  }
  while (outstanding > 0) turn(asking);
  return crowd;
}

bool isChannelTrick(kj::StringPtr trick) {
  return find(trick) != nullptr;
}

kj::Promise<void> playChannelTrick(kj::StringPtr trick, BulkMux& bulk, kj::Function<void()>& hangUp,
                                   ConnectContext context, kj::Vector<kj::Promise<void>>& plays) {
  auto& known = KJ_REQUIRE_NONNULL(find(trick), trick);
  if (known.play != nullptr) {
    auto params = context.getParams();
    auto accepted = bulk.accept({params.getChannel(), params.getCredit()});
    KJ_IF_MAYBE (channel, accepted.tryGet<kj::Own<BulkChannel>>()) {
      auto& reference = **channel;
      plays.add(known.play(reference).attach(kj::mv(*channel)).eagerlyEvaluate([](kj::Exception&&) {}));
    }
  }
  return answer(known.answer, hangUp, context);
}

void listEvilServices(ServicesContext context) {
  auto services = context.getResults().initServices(5000);
  for (unsigned i = 0; i < services.size(); ++i) services.set(i, evilText(i % 100));
}

}  // namespace postern::test
