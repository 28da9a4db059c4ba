// hostile-guest BUNDLE-FILE SOCKET
//
// A guest with real keys that means ill. Obeys lines on standard input, each "DEED MS", and says on standard output
// "begins DEED" when it begins and "did DEED NUMBER" after it: how often it did it. Its keys live as long as the
// process.
//
// Deeds on a session of their own:
//   half-enrol      takes ACCEPT, sends no COMMIT, and goes; only before `enrol`
//   reuse-token     comes with another key and the same token
//   enrol           enrols
//   behave          as those below: heartbeats once a second, and answers calls properly
//   heartbeats      as many heartbeats as go, pipelined, with nonsense in every field
//   nonsense        5 heartbeats a second with the extremes of every number, and texts of control characters and 1 MB
//   goodbyes        goodbye, of every code and of none that there is, over and over
//   pings           as many PING records as go
//   bulk            bytes on channels that nobody offered
//   garbage         bytes on the link that are no frame, behind a session's back
//   rpc             RPC messages in every wrong order, one session each
//   leaks           bootstraps and calls that are never finished
//   unknown         calls of methods and interfaces that are not there
//   unread          heartbeats, whose answers are not read
//   reconnects      a session after the other, each with another agent's id, and counters that go back
//   strangers       connections that say nothing, half a HELLO, or noise
//   channel:probe:FOLDER           questions for channels by FOLDER/plan, answers to FOLDER/answers
//   (hostile-channels.h) channel:flood:COUNT:TO:SERVICE so many questions as fast as they go channel:offers:TO:SERVICE
//   questions that offer a channel which is none, a session each
// and, until a line comes, which may be empty, while it answers calls in that way and heartbeats properly:
//   silent          never
//   giant           with texts of 1 MB, full of control characters, and lists of thousands
//   escapes         with refusals whose texts are control characters and terminal sequences
//   steps           power: with ten thousand progress steps
//   hangs-up        by ending the session in the middle of the call
//   throws          with exceptions
//   file:TRICK      file transfers with one of the tricks of hostile-files.h; all other calls properly
//   channel:TRICK   connections to its services with one of the tricks of hostile-channels.h; all other calls properly
//   channel:crowd:COUNT:TO:SERVICE  as many channels of its own, of which it reads nothing

#include <capnp/rpc.capnp.h>
#include <errno.h>
#include <fcntl.h>
#include <kj/async-io.h>
#include <kj/debug.h>
#include <poll.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <iostream>
#include <limits>
#include <sstream>
#include <string>

#include "protocol/bundle.h"
#include "protocol/establish.h"
#include "protocol/guest.capnp.h"
#include "protocol/limits.h"
#include "protocol/read-scratch.h"
#include "protocol/rpc-system.h"
#include "tests/integration/hostile-channels.h"
#include "tests/integration/hostile-files.h"
#include "transport/connector.h"
#include "transport/random.h"
#include "transport/stream-link.h"

namespace postern::test {
namespace {

namespace rpc = capnp::rpc;

constexpr size_t GIANT = size_t(1) << 20;
constexpr unsigned OUTSTANDING = 2000;

enum class Mood { PROPER, SILENT, GIANT, ESCAPES, STEPS, HANGS_UP, THROWS };

// Escape sequences of terminals (title, clear, colour), line breaks, NUL's neighbours, DEL, C1 and broken UTF-8.
kj::String evilText(size_t size) {
  static const char seed[] = "\033]0;owned\007\033[2J\033[31mred\r\n\b\x01\x7f\xc2\x9b\xff\xfe\xc3(\u202e\",\"x\":{";
  auto text = kj::heapString(size);
  for (size_t i = 0; i < size; ++i) text.begin()[i] = seed[i % (sizeof(seed) - 1)];
  return text;
}

// A session's bulk channels, and what to do on them.
struct Mischief {
  BulkMux& bulk;
  kj::StringPtr trick;                   // empty: none
  kj::Vector<kj::Promise<void>>& plays;  // go on for as long as the session
};

class Calls final : public schema::GuestCalls::Server {
 public:
  Calls(Mood mood, kj::Function<void()>& hangUp, Mischief mischief) : mood(mood), hangUp(hangUp), mischief(mischief) {}

  kj::Promise<void> file(FileContext context) override {
    if (!isFileTrick(mischief.trick)) return answer([]() {});
    auto params = context.getParams();
    auto accepted = mischief.bulk.accept({params.getChannel(), params.getCredit()});
    KJ_IF_MAYBE (channel, accepted.tryGet<kj::Own<BulkChannel>>()) {
      auto& reference = **channel;
      auto play = playFileTrick(mischief.trick, reference).then([&reference]() { return drain(reference); });
      plays.add(play.attach(kj::mv(*channel)).eagerlyEvaluate([](kj::Exception&&) {}));
    }
    return kj::READY_NOW;
  }

  kj::Promise<void> connect(ConnectContext context) override {
    if (!isChannelTrick(mischief.trick)) return answer([]() {});
    return playChannelTrick(mischief.trick, mischief.bulk, hangUp, context, mischief.plays);
  }
  kj::Promise<void> services(ServicesContext context) override {
    if (isChannelTrick(mischief.trick)) listEvilServices(context);
    return answer([]() {});
  }

  kj::Promise<void> ping(PingContext context) override {
    return answer([&]() {
      if (mood == Mood::ESCAPES) refuse(context.getResults().initRefusal());
    });
  }
  kj::Promise<void> info(InfoContext context) override {
    return answer([&]() {
      if (mood == Mood::ESCAPES) return refuse(context.getResults().initRefusal());
      fill(context.getResults().initInfo());
    });
  }
  kj::Promise<void> power(PowerContext context) override {
    auto observer = context.getParams().getObserver();
    return answer([&]() {
      if (mood == Mood::ESCAPES) return refuse(context.getResults().initRefusal());
      context.getResults().setOperation(~uint64_t(0));
      if (mood != Mood::STEPS) return;
      for (unsigned i = 0; i < 10'000; ++i) {
        auto request = observer.progressRequest();
        auto step = request.initStep();
        if (i % 3 == 0) step.setHook(evilText(200));
        if (i % 3 == 1) step.setWaiting(~uint32_t(0));
        if (i % 3 == 2) step.setStopping();
        steps.add(request.send().ignoreResult().catch_([](kj::Exception&&) {}).eagerlyEvaluate(nullptr));
      }
    });
  }

 private:
  const Mood mood;
  kj::Function<void()>& hangUp;
  const Mischief mischief;
  kj::Vector<kj::Promise<void>> steps;
  kj::Vector<kj::Promise<void>> plays;

  static kj::Promise<void> drain(BulkChannel& channel) {
    return channel.read().then([&channel](kj::OneOf<BulkChunk, BulkEnd> got) -> kj::Promise<void> {
      if (got.is<BulkEnd>()) return kj::READY_NOW;
      return drain(channel);
    });
  }

  template <typename Fill>
  kj::Promise<void> answer(Fill&& fill) {
    switch (mood) {
      case Mood::SILENT:
        return kj::NEVER_DONE;
      case Mood::HANGS_UP:
        hangUp();
        return kj::NEVER_DONE;
      case Mood::THROWS:
        return KJ_EXCEPTION(FAILED, "\033[2J evil \n exception");
      default:
        if (mood != Mood::PROPER) fill();
        return kj::READY_NOW;
    }
  }

  void refuse(schema::Refusal::Builder refusal) {
    refusal.setReason(static_cast<schema::Refusal::Reason>(turn++ % 2 == 0 ? 0 : 60'000));
    refusal.setDetail(evilText(4000));
    refusal.setRule(evilText(300));
    refusal.setSuggestion(evilText(6000));
  }

  void fill(schema::Info::Builder info) {
    info.setAgentVersion(evilText(GIANT));
    auto os = info.initOs().initValue();
    os.setName(evilText(GIANT));
    os.setKernel(evilText(1000));
    os.setHostName(evilText(1000));
    os.setBootedSecondsAgo(~uint64_t(0));
    os.setBootId(evilText(100));
    auto interfaces = info.initNetwork().initValue(5000);
    for (auto interface : interfaces) interface.setName(evilText(30));
    auto systems = info.initFilesystems().initValue(2000);
    for (auto system : systems) {
      system.setMountPoint(evilText(100));
      system.setTotalBytes(1);
      system.setAvailableBytes(~uint64_t(0));
    }
    auto users = info.initUsers().initValue(100);
    for (auto user : users) user.setLoggedInSecondsAgo(~uint64_t(0));
  }

  unsigned turn = 0;
};

class Bootstrap final : public schema::Guest::Server {
 public:
  Bootstrap(Mood mood, kj::Function<void()>& hangUp, Mischief mischief)
      : mood(mood), hangUp(hangUp), mischief(mischief) {}
  kj::Promise<void> callsFor(CallsForContext context) override {
    context.getResults().setCalls(kj::heap<Calls>(mood, hangUp, mischief));
    return kj::READY_NOW;
  }

 private:
  const Mood mood;
  kj::Function<void()>& hangUp;
  const Mischief mischief;
};

class HostileGuest final : private kj::TaskSet::ErrorHandler {
 public:
  HostileGuest(kj::AsyncIoContext& io, kj::Own<Bundle> bundleParam, const char* socket)
      : io(io),
        timer(io.unixEventPort.getTimer()),
        pool(timer),
        environment{timer, pool, random},
        bundle(kj::mv(bundleParam)),
        endpoint(UnixEndpoint{kj::str(socket)}),
        hangUp([this]() { dropLater(); }),
        tasks(*this) {
    own = GuestKeyPair::generate(random);
    random.fill(kj::arrayPtr(reinterpret_cast<kj::byte*>(&instance), sizeof(instance)));
    boot = Uint128{7, 7};
  }

  // How often it was done.
  kj::Maybe<uint64_t> obey(const std::string& deed, kj::Duration during) {
    // What came before may have used up the host's patience with this guest.
    if (secret != nullptr && deed != "reuse-token") {
      (void)connect();
      live = nullptr;
    }
    printf("begins %s\n", deed.c_str());
    fflush(stdout);
    end = timer.now() + during;
    if (deed == "half-enrol") return halfEnrol();
    if (deed == "reuse-token") return reuseToken();
    if (deed == "enrol") return enrol();
    if (deed == "behave") return serve(Mood::PROPER);
    if (deed == "silent") return serve(Mood::SILENT);
    if (deed == "giant") return serve(Mood::GIANT);
    if (deed == "escapes") return serve(Mood::ESCAPES);
    if (deed == "steps") return serve(Mood::STEPS);
    if (deed == "hangs-up") return serve(Mood::HANGS_UP);
    if (deed == "throws") return serve(Mood::THROWS);
    if (deed.starts_with("file:")) {
      trick = kj::str(deed.substr(5).c_str());
      if (!isFileTrick(trick)) return nullptr;
      KJ_DEFER(trick = nullptr);
      return serve(Mood::PROPER);
    }
    if (deed.starts_with("channel:")) return channels(deed);
    if (deed == "heartbeats") return heartbeats();
    if (deed == "nonsense") return nonsense();
    if (deed == "goodbyes") return goodbyes();
    if (deed == "pings") return pings();
    if (deed == "bulk") return bulk();
    if (deed == "garbage") return garbage();
    if (deed == "rpc") return wrongOrders();
    if (deed == "leaks") return leaks();
    if (deed == "unknown") return unknown();
    if (deed == "unread") return unread();
    if (deed == "reconnects") return reconnects();
    if (deed == "strangers") return strangers();
    return nullptr;
  }

 private:
  struct Live {
    kj::Own<Session> session;
    kj::Vector<kj::Promise<void>> plays;
    kj::AutoCloseFd behind;                 // the same socket
    kj::Maybe<kj::Own<RpcConnection>> rpc;  // goes before the session
    schema::Host::Client host = nullptr;
    ~Live() noexcept(false) {
      host = nullptr;
      rpc = nullptr;
    }
  };

  kj::AsyncIoContext& io;
  kj::Timer& timer;
  SystemRandom random;
  BlockPool pool;
  ReadScratch scratch;
  SessionEnvironment environment;
  kj::Own<Bundle> bundle;
  const Endpoint endpoint;
  GuestKeyPair own;
  kj::Maybe<LinkSecret> secret;
  kj::Maybe<HostPublicKey> hostKey;
  uint64_t counter = 0;
  Uint128 instance, boot;
  uint64_t sequence = 0;
  kj::TimePoint end = kj::origin<kj::TimePoint>();
  kj::Maybe<kj::Own<Live>> live;
  kj::Function<void()> hangUp;
  kj::String trick;
  kj::TaskSet tasks;

  // Whether the next line waits: an empty one, which ends a deed that would go on.
  static bool isAskedForMore() {
    struct pollfd input {
      STDIN_FILENO, POLLIN, 0
    };
    return poll(&input, 1, 0) > 0;
  }
  bool isTime() { return timer.now() < end; }
  void turn(kj::Duration pause) { timer.afterDelay(pause).wait(io.waitScope); }
  void dropLater() {
    tasks.add(kj::evalLast([this]() { live = nullptr; }));
  }

  GuestKeyPair copyOfOwn() {
    Secret<noise::KEY_BYTES> copy = own.pair.secretKey.clone();
    return {noise::KeyPair::from(kj::mv(copy))};
  }
  GuestCredentials enrolment(GuestKeyPair key) {
    return GuestEnrolment{bundle->vm, kj::mv(key), bundle->host, {bundle->token.bytes.clone()}};
  }
  GuestCredentials identity() {
    return GuestIdentity{bundle->vm, copyOfOwn(), KJ_ASSERT_NONNULL(hostKey),
                         LinkSecret{KJ_ASSERT_NONNULL(secret).bytes.clone()}};
  }

  // Null: no host, or refused.
  kj::Maybe<kj::AutoCloseFd> reach() {
    auto connected = connectTo(io.unixEventPort, timer, endpoint).wait(io.waitScope);
    if (connected.is<TransportError>()) return nullptr;
    return connected.get<Connection>().fd.release();
  }

  struct Met {
    GuestSession guest;
    kj::AutoCloseFd behind;
  };
  kj::Maybe<Met> meet(const GuestCredentials& credentials) {
    KJ_IF_MAYBE (fd, reach()) {
      int copy;
      KJ_SYSCALL(copy = fcntl(*fd, F_DUPFD_CLOEXEC, 3));
      kj::AutoCloseFd behind(copy);
      Hello hello;
      hello.role = Role::GUEST;
      describeCredentials(credentials, hello);
      random.fill(kj::arrayPtr(hello.nonce.data(), hello.nonce.size()));
      Connection connection{TransportKind::UNIX, DescriptorKind::SOCKET, UnknownPeer(), kj::mv(*fd)};
      auto link = openStreamLink(newPipe(io.unixEventPort, kj::mv(connection)), hello, scratch)
                      .exclusiveJoin(timer.afterDelay(3 * kj::SECONDS).then([]() {
                        return kj::OneOf<kj::Own<FrameLink>, HelloError, LinkEnd>(LinkEnd());
                      }))
                      .wait(io.waitScope);
      if (!link.is<kj::Own<FrameLink>>()) return nullptr;
      Confirmation confirmation;
      confirmation.sessionCounter = ++counter;
      confirmation.bootId = boot;
      confirmation.agentInstance = instance;
      auto result = establishAsGuest(kj::mv(link.get<kj::Own<FrameLink>>()), credentials, confirmation,
                                     timer.now() + limits::HANDSHAKE_DEADLINE, environment)
                        .wait(io.waitScope);
      if (!result.is<GuestSession>()) return nullptr;
      return Met{kj::mv(result.get<GuestSession>()), kj::mv(behind)};
    }
    return nullptr;
  }

  uint64_t halfEnrol() {
    auto met = KJ_ASSERT_NONNULL(meet(enrolment(copyOfOwn())), "no ACCEPT");
    return 1;
  }
  // 1 if it was refused, as it should be.
  uint64_t reuseToken() { return meet(enrolment(GuestKeyPair::generate(random))) == nullptr ? 1 : 0; }

  uint64_t enrol() {
    auto met = KJ_ASSERT_NONNULL(meet(enrolment(copyOfOwn())), "no ACCEPT");
    met.guest.session->commit().wait(io.waitScope);
    secret = kj::mv(KJ_ASSERT_NONNULL(met.guest.acceptance.linkSecret));
    hostKey = met.guest.host;
    return 1;
  }

  // A new session with nothing above it; with patience, since the host may hold back who came too often.
  Live& connect() {
    live = nullptr;
    for (unsigned i = 0; i < 100; ++i) {
      KJ_IF_MAYBE (met, meet(identity())) {
        auto made = kj::heap<Live>();
        made->session = kj::mv(met->guest.session);
        made->behind = kj::mv(met->behind);
        auto& reference = *made;
        live = kj::mv(made);
        return reference;
      }
      turn(100 * kj::MILLISECONDS);
    }
    KJ_FAIL_REQUIRE("the host takes no session of this guest any more");
  }
  Live& speak(Mood mood = Mood::PROPER) {
    auto& made = connect();
    auto bootstrap = kj::heap<Bootstrap>(mood, hangUp, Mischief{made.session->bulk(), trick, made.plays});
    auto& connection =
        *made.rpc.emplace(kj::heap<RpcConnection>(*made.session, Role::GUEST, kj::mv(bootstrap), [](kj::StringPtr) {}));
    made.host = connection.peer().castAs<schema::Host>();
    return made;
  }
  bool isOver() {
    KJ_IF_MAYBE (l, live) return (*l)->session->isOver();
    return true;
  }

  void beatProperly(Live& to) {
    auto request = to.host.heartbeatRequest();
    request.setSequence(++sequence);
    request.setIntervalMilliseconds(1000);
    request.setBootIdHigh(boot.high);
    request.setBootIdLow(boot.low);
    request.setUptimeMilliseconds(sequence * 1000);
    request.setAgentVersion("evil");
    tasks.add(request.send().ignoreResult().catch_([](kj::Exception&&) {}));
  }

  uint64_t serve(Mood mood) {
    uint64_t beats = 0;
    while (isTime() && !isAskedForMore()) {
      auto& to = isOver() ? speak(mood) : *KJ_ASSERT_NONNULL(live);
      beatProperly(to);
      ++beats;
      for (unsigned i = 0; i < 20 && isTime() && !isAskedForMore() && !isOver(); ++i) turn(50 * kj::MILLISECONDS);
    }
    live = nullptr;
    return beats;
  }

  kj::Maybe<uint64_t> channels(const std::string& deed) {
    std::istringstream stream(deed.substr(sizeof("channel:") - 1));
    kj::Vector<kj::String> words;
    for (std::string word; std::getline(stream, word, ':');) words.add(kj::str(word.c_str()));
    if (words.size() == 1 && isChannelTrick(words[0])) {
      trick = kj::mv(words[0]);
      KJ_DEFER(trick = nullptr);
      return serve(Mood::PROPER);
    }
    if (words.size() == 2 && words[0] == "probe") return probeChannels(io, *connect().session, words[1]);
    if (words.size() < 3) return nullptr;
    Wanted wanted{kj::str(words[words.size() - 2]), kj::str(words.back())};
    if (words[0] == "offers") return offers(wanted);
    if (words[0] == "flood") return floodWithQuestions(asking(speak()), words[1].parseAs<uint64_t>(), wanted);
    if (words[0] == "crowd") return crowd(words[1].parseAs<uint64_t>(), wanted);
    return nullptr;
  }
  Asking asking(Live& to) { return {io, to.session->bulk(), to.host}; }
  uint64_t offers(const Wanted& wanted) {
    for (unsigned i = 0; i < BAD_OFFERS; ++i) offerBadChannel(asking(speak()), i, wanted);
    live = nullptr;
    return BAD_OFFERS;
  }
  // Beats on the same session, until a line comes.
  uint64_t crowd(uint64_t count, const Wanted& wanted) {
    auto& to = speak();
    beatProperly(to);
    auto held = openCrowd(asking(to), count, wanted);
    while (isTime() && !isAskedForMore() && !isOver()) {
      beatProperly(to);
      for (unsigned i = 0; i < 20 && isTime() && !isAskedForMore() && !isOver(); ++i) turn(50 * kj::MILLISECONDS);
    }
    auto opened = held.size();
    held.clear();
    live = nullptr;
    return opened;
  }

  void fillWithNonsense(schema::Heartbeat::Builder beat, uint64_t salt, size_t textBytes) {
    const uint64_t extremes[] = {0, 1, ~uint64_t(0), uint64_t(1) << 63, 0x7fffffffffffffff, salt};
    auto extreme = [&](unsigned i) { return extremes[(salt + i) % 6]; };
    beat.setSequence(extreme(0));
    beat.setIntervalMilliseconds(static_cast<uint32_t>(extreme(1)));
    beat.setBootIdHigh(extreme(2));
    beat.setBootIdLow(extreme(3));
    beat.setUptimeMilliseconds(extreme(4));
    beat.setAgentUptimeMilliseconds(extreme(5));
    beat.setLoopLagMicroseconds(static_cast<uint32_t>(extreme(0)));
    beat.setLoad1(static_cast<uint32_t>(extreme(1)));
    beat.setLoad5(static_cast<uint32_t>(extreme(2)));
    beat.setMemoryTotalKiB(extreme(3));
    beat.setMemoryAvailableKiB(extreme(4));
    beat.setState(static_cast<schema::Heartbeat::State>(extreme(5)));
    beat.setPolicyHash(kj::arrayPtr(reinterpret_cast<const kj::byte*>(extremes), salt % 33));
    beat.setAgentVersion(evilText(textBytes));
  }

  uint64_t heartbeats() {
    uint64_t sent = 0;
    unsigned outstanding = 0;
    while (isTime()) {
      auto& to = isOver() ? speak() : *KJ_ASSERT_NONNULL(live);
      while (outstanding < OUTSTANDING) {
        auto request = to.host.heartbeatRequest();
        fillWithNonsense(request, sent, 40);
        ++sent;
        ++outstanding;
        tasks.add(request.send().then([&outstanding](auto) { --outstanding; },
                                      [&outstanding](kj::Exception&&) { --outstanding; }));
      }
      turn(1 * kj::MILLISECONDS);
    }
    live = nullptr;
    while (outstanding > 0) turn(1 * kj::MILLISECONDS);
    return sent;
  }

  uint64_t nonsense() {
    uint64_t sent = 0;
    while (isTime()) {
      auto& to = isOver() ? speak() : *KJ_ASSERT_NONNULL(live);
      auto request = to.host.heartbeatRequest();
      fillWithNonsense(request, sent, sent % 5 == 4 ? GIANT : 60);
      ++sent;
      tasks.add(request.send().ignoreResult().catch_([](kj::Exception&&) {}));
      turn(200 * kj::MILLISECONDS);
    }
    live = nullptr;
    return sent;
  }

  uint64_t goodbyes() {
    uint64_t sent = 0;
    while (isTime()) {
      auto& to = isOver() ? speak() : *KJ_ASSERT_NONNULL(live);
      for (unsigned i = 0; i < 100; ++i) {
        auto request = to.host.goodbyeRequest();
        request.setWhy(static_cast<schema::Goodbye>(i % 2 == 0 ? i : 60'000));
        ++sent;
        tasks.add(request.send().ignoreResult().catch_([](kj::Exception&&) {}));
      }
      beatProperly(to);
      turn(100 * kj::MILLISECONDS);
      if (sent % 500 == 0) live = nullptr;
    }
    live = nullptr;
    return sent;
  }

  uint64_t pings() {
    uint64_t sent = 0;
    unsigned outstanding = 0;
    while (isTime()) {
      auto& to = isOver() ? speak() : *KJ_ASSERT_NONNULL(live);
      while (outstanding < OUTSTANDING) {
        ++sent;
        ++outstanding;
        tasks.add(to.session->ping().then([&outstanding](auto) { --outstanding; },
                                          [&outstanding](kj::Exception&&) { --outstanding; }));
      }
      turn(1 * kj::MILLISECONDS);
    }
    live = nullptr;
    while (outstanding > 0) turn(1 * kj::MILLISECONDS);
    return sent;
  }

  uint64_t bulk() {
    uint64_t sent = 0;
    while (isTime()) {
      auto& to = speak();
      kj::Vector<kj::Own<BulkChannel>> channels;
      for (unsigned i = 0; i < 200; ++i) {
        KJ_IF_MAYBE (opened, to.session->bulk().open()) {
          channels.add(kj::mv(opened->channel));
          ++sent;
        }
      }
      // Not offered, so a breach from the first byte, the close, the reset of each.
      channels.clear();
      auto offered = to.session->bulk().accept({2, limits::BULK_WINDOW_FIRST});
      if (offered.is<kj::Own<BulkChannel>>()) offered.get<kj::Own<BulkChannel>>() = nullptr;
      turn(50 * kj::MILLISECONDS);
    }
    live = nullptr;
    return sent;
  }

  uint64_t garbage() {
    uint64_t sent = 0;
    kj::byte noise[4096];
    while (isTime()) {
      auto& to = speak();
      beatProperly(to);
      turn(20 * kj::MILLISECONDS);
      random.fill(kj::arrayPtr(noise, sizeof(noise)));
      (void)!send(to.behind, noise, 1 + sent * 97 % sizeof(noise), MSG_NOSIGNAL | MSG_DONTWAIT);
      ++sent;
      turn(30 * kj::MILLISECONDS);
    }
    live = nullptr;
    return sent;
  }

  using Message = capnp::MallocMessageBuilder;
  void put(Live& to, Message& message) {
    tasks.add(to.session->rpcStream().writeMessage(message).catch_([](kj::Exception&&) {}));
  }

  // One message that makes no sense where it is sent.
  void fillWrongOrder(Message& message, uint64_t which) {
    auto root = message.initRoot<rpc::Message>();
    auto number = static_cast<uint32_t>(which * 2654435761u);
    switch (which % 16) {
      case 0:
        return root.initReturn().setAnswerId(number);
      case 1: {
        auto finish = root.initFinish();
        finish.setQuestionId(number);
        return finish.setReleaseResultCaps(true);
      }
      case 2:
        return root.initResolve().setPromiseId(number);
      case 3: {
        auto release = root.initRelease();
        release.setId(number % 3);
        return release.setReferenceCount(~uint32_t(0));
      }
      case 4: {
        auto disembargo = root.initDisembargo();
        disembargo.initTarget().setImportedCap(number);
        return disembargo.getContext().setReceiverLoopback(number);
      }
      case 5: {
        auto call = root.initCall();
        call.setQuestionId(number);
        call.initTarget().setImportedCap(number);
        return call.setInterfaceId(~uint64_t(0));
      }
      case 6: {
        auto call = root.initCall();
        call.initTarget().initPromisedAnswer().setQuestionId(number);
        return call.setMethodId(65535);
      }
      case 7:
        return root.initProvide().setQuestionId(number);
      case 8:
        return root.initAccept().setQuestionId(number);
      case 9:
        return root.initJoin().setQuestionId(number);
      case 10:
        return root.initAbort().setReason(evilText(10'000));
      case 11:
        return root.initUnimplemented().initUnimplemented().initUnimplemented().initBootstrap().setQuestionId(number);
      case 12: {
        auto call = root.initCall();  // answered to a third party, with capabilities that are not ours to give
        call.setQuestionId(1);
        call.initTarget().initPromisedAnswer().setQuestionId(0);
        auto caps = call.initParams().initCapTable(3000);
        for (auto cap : caps) cap.setReceiverHosted(number);
        return call.getSendResultsTo().setYourself();
      }
      case 13: {
        auto call = root.initCall();  // a transform deeper than anything is
        call.setQuestionId(2);
        auto steps = call.initTarget().initPromisedAnswer().initTransform(5000);
        for (auto step : steps) step.setGetPointerField(65535);
        return;
      }
      case 14:
        root.initBootstrap().setQuestionId(0);  // twice the same question, unfinished
        return;
      default: {
        // No message of RPC at all.
        auto noise = message.initRoot<capnp::AnyPointer>().initAs<capnp::Data>(4096);
        random.fill(noise);
        return;
      }
    }
  }

  uint64_t wrongOrders() {
    uint64_t sent = 0;
    while (isTime()) {
      auto& to = connect();
      Message first;
      first.initRoot<rpc::Message>().initBootstrap().setQuestionId(0);
      put(to, first);
      for (unsigned i = 0; i < 3 && !isOver(); ++i) {
        Message message;
        fillWrongOrder(message, sent++);
        put(to, message);
      }
      turn(40 * kj::MILLISECONDS);
    }
    live = nullptr;
    return sent;
  }

  uint64_t leaks() {
    uint64_t sent = 0;
    while (isTime()) {
      auto& to = connect();
      for (uint32_t question = 0; question < 200'000 && isTime() && !isOver(); ++question) {
        Message message;
        if (question % 2 == 0) {
          message.initRoot<rpc::Message>().initBootstrap().setQuestionId(question);
        } else {
          auto call = message.initRoot<rpc::Message>().initCall();
          call.setQuestionId(question);
          call.initTarget().initPromisedAnswer().setQuestionId(question - 1);
          call.setInterfaceId(capnp::typeId<schema::Host>());
          auto params = call.initParams();
          params.initContent().initAs<schema::Heartbeat>();
          auto caps = params.initCapTable(10);
          for (unsigned i = 0; i < 10; ++i) caps[i].setSenderHosted(question * 10 + i);
        }
        put(to, message);
        ++sent;
        if (question % 1000 == 0) turn(1 * kj::MILLISECONDS);
      }
    }
    live = nullptr;
    return sent;
  }

  uint64_t unknown() {
    uint64_t sent = 0;
    while (isTime()) {
      auto& to = isOver() ? speak() : *KJ_ASSERT_NONNULL(live);
      for (unsigned i = 0; i < 100; ++i) {
        auto request = to.host.typelessRequest(i % 2 == 0 ? capnp::typeId<schema::Host>() : ~uint64_t(i),
                                               static_cast<uint16_t>(2 + i), nullptr);
        request.initAs<capnp::Data>(100);
        tasks.add(request.send().ignoreResult().catch_([](kj::Exception&&) {}));
        ++sent;
      }
      turn(10 * kj::MILLISECONDS);
    }
    live = nullptr;
    return sent;
  }

  // Nothing reads the session's RPC, so that answers stay where they are.
  uint64_t unread() {
    uint64_t sent = 0;
    while (isTime()) {
      auto& to = connect();
      Message first;
      first.initRoot<rpc::Message>().initBootstrap().setQuestionId(0);
      put(to, first);
      while (isTime() && !isOver()) {
        for (unsigned i = 0; i < 500; ++i) {
          Message message;
          auto call = message.initRoot<rpc::Message>().initCall();
          call.setQuestionId(static_cast<uint32_t>(1 + sent++));
          call.initTarget().initPromisedAnswer().setQuestionId(0);
          call.setInterfaceId(capnp::typeId<schema::Host>());
          call.initParams().initContent().initAs<schema::Heartbeat>().setSequence(sent);
          put(to, message);
        }
        turn(1 * kj::MILLISECONDS);
      }
    }
    live = nullptr;
    return sent;
  }

  uint64_t reconnects() {
    uint64_t made = 0;
    while (isTime()) {
      random.fill(kj::arrayPtr(reinterpret_cast<kj::byte*>(&instance), sizeof(instance)));
      boot.low = made;
      if (made % 7 == 0) counter = 0;
      KJ_IF_MAYBE (met, meet(identity())) {
        ++made;
        if (made % 3 == 0) tasks.add(met->guest.session->close(CloseCode::GOODBYE).attach(kj::mv(met->guest.session)));
      } else {
        turn(5 * kj::MILLISECONDS);
      }
    }
    counter += 1'000'000;
    return made;
  }

  uint64_t strangers() {
    uint64_t made = 0;
    kj::Vector<kj::AutoCloseFd> open;
    kj::byte noise[200];
    while (isTime()) {
      KJ_IF_MAYBE (fd, reach()) {
        random.fill(kj::arrayPtr(noise, sizeof(noise)));
        if (made % 3 == 1) {
          Hello hello;
          hello.role = Role::GUEST;
          describeCredentials(identity(), hello);
          random.fill(kj::arrayPtr(hello.nonce.data(), hello.nonce.size()));
          writeHello(hello, kj::arrayPtr(noise, HELLO_BYTES));
        }
        if (made % 3 != 0) (void)!send(*fd, noise, made % 3 == 1 ? 60 : sizeof(noise), MSG_NOSIGNAL | MSG_DONTWAIT);
        open.add(kj::mv(*fd));
        ++made;
      }
      if (open.size() > 200) open.clear();
      turn(2 * kj::MILLISECONDS);
    }
    return made;
  }

  void taskFailed(kj::Exception&&) override {}
};

int run(const char* file, const char* socket) {
  signal(SIGPIPE, SIG_IGN);
  std::ifstream in(file);
  std::stringstream text;
  text << in.rdbuf();
  auto content = text.str();
  auto parsed = parseBundle(kj::arrayPtr(content.data(), content.size()));
  KJ_REQUIRE(parsed.is<kj::Own<Bundle>>(), "no bundle", file);
  auto io = kj::setupAsyncIo();
  HostileGuest guest(io, kj::mv(parsed.get<kj::Own<Bundle>>()), socket);
  std::string line;
  while (std::getline(std::cin, line)) {
    std::istringstream words(line);
    std::string deed;
    int64_t milliseconds = 0;
    if (!(words >> deed >> milliseconds)) continue;
    KJ_IF_MAYBE (times, guest.obey(deed, milliseconds * kj::MILLISECONDS)) {
      printf("did %s %llu\n", deed.c_str(), static_cast<unsigned long long>(*times));
    } else {
      printf("what is %s?\n", deed.c_str());
    }
    fflush(stdout);
  }
  return 0;
}

}  // namespace
}  // namespace postern::test

int main(int argc, char** argv) {
  if (argc != 3 || sodium_init() < 0) return 2;
  return postern::test::run(argv[1], argv[2]);
}
