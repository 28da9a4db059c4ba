// The parts that posternd is made of and that need no posternd: what bounds callers, what watches processes and grants.

#include <doctest/doctest.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <vector>

#include "host/daemon/call-bucket.h"
#include "host/daemon/damper.h"
#include "host/daemon/events.h"
#include "host/daemon/live-grants.h"
#include "host/daemon/process-watch.h"
#include "host/local-rpc/local-rpc.h"
#include "tests/support/lingering-tcp.h"
#include "tests/unit/host/hub-fixture.h"

namespace postern::host {
namespace {

constexpr auto S = kj::SECONDS;
constexpr auto MS = kj::MILLISECONDS;

// CallBucket, Damper, Events ---------------------------------------------------------------------------------------

struct Turned {
  kj::EventLoop loop;
  kj::WaitScope waitScope{loop};
  kj::TimerImpl timer{kj::origin<kj::TimePoint>()};
  void advance(kj::Duration by) { timer.advanceTo(timer.now() + by); }
};

TEST_CASE("a burst of calls passes at once, and then so many a second, in their order") {
  Turned t;
  CallBucket bucket(t.timer, 10, 5);
  for (int i = 0; i < 5; ++i) CHECK(bucket.take().poll(t.waitScope));
  auto sixth = bucket.take();
  auto seventh = bucket.take();
  CHECK_FALSE(sixth.poll(t.waitScope));
  t.advance(100 * MS);
  CHECK(sixth.poll(t.waitScope));
  CHECK_FALSE(seventh.poll(t.waitScope));
  t.advance(100 * MS);
  CHECK(seventh.poll(t.waitScope));
  t.advance(3600 * S);  // however long: no more than a burst
  for (int i = 0; i < 5; ++i) CHECK(bucket.take().poll(t.waitScope));
  CHECK_FALSE(bucket.take().poll(t.waitScope));
}

TEST_CASE("a call that is as much work as others counts like them") {
  Turned t;
  CallBucket bucket(t.timer, 10, 5);
  CHECK(bucket.take(5).poll(t.waitScope));
  auto next = bucket.take(10);
  t.advance(999 * MS);
  CHECK_FALSE(next.poll(t.waitScope));
  t.advance(1 * MS);
  CHECK(next.poll(t.waitScope));
}

TEST_CASE("what one does over and over is written so often, and then counted; others are written as before") {
  Turned t;
  Damper damper(t.timer, 3, 60);
  for (int i = 0; i < 3; ++i) CHECK(KJ_REQUIRE_NONNULL(damper.take("mallory")) == 0);
  for (int i = 0; i < 50; ++i) CHECK((damper.take("mallory") == nullptr));
  CHECK(KJ_REQUIRE_NONNULL(damper.take("alice")) == 0);
  t.advance(1 * S);
  CHECK(KJ_REQUIRE_NONNULL(damper.take("mallory")) == 50);
  CHECK((damper.take("mallory") == nullptr));
  t.advance(1 * S);
  CHECK(KJ_REQUIRE_NONNULL(damper.take("mallory")) == 1);
}

TEST_CASE("ever new names do not escape the damper, nor fill the memory") {
  Turned t;
  Damper damper(t.timer, 1, 60);
  unsigned written = 0;
  for (int i = 0; i < 10'000; ++i) written += damper.take(kj::str("name", i)) != nullptr;
  CHECK(written <= 4097);
  t.advance(60 * S);
  CHECK((damper.take("another") != nullptr));
}

TEST_CASE("events are numbered, the newest are kept, and who waits for one is woken once") {
  Turned t;
  Events events;
  auto waiting = events.whenAfter(0);
  CHECK_FALSE(waiting.poll(t.waitScope));
  events.add("web1", "lost", kj::str("x"));
  CHECK(waiting.poll(t.waitScope));
  CHECK(events.whenAfter(0).poll(t.waitScope));
  CHECK_FALSE(events.whenAfter(1).poll(t.waitScope));
  for (size_t i = 0; i < MAX_EVENTS; ++i) events.add("", "added", kj::str(i));
  CHECK(events.last() == MAX_EVENTS + 1);
  uint64_t seen = 0, first = 0;
  events.forEachAfter(0, [&](const Event& event) {
    if (seen++ == 0) first = event.sequence;
  });
  CHECK(seen == MAX_EVENTS);
  CHECK(first == 2);
  // Waiters that are gone do not pile up: this would take its memory and time.
  for (int i = 0; i < 10'000; ++i) (void)events.whenAfter(events.last());
}

// LiveGrants -------------------------------------------------------------------------------------------------------

GrantEntry grant(uint64_t id, kj::StringPtr vm, uid_t uid) {
  auto caller = kj::atomicRefcounted<LocalCaller>();
  caller->uid = uid;
  return {id, kj::str(vm), {{}, kj::str("rule"), nullptr, nullptr, {}}, kj::mv(caller)};
}
template <typename Condition>
bool soon(kj::AsyncIoContext& io, Condition&& condition) {
  for (int i = 0; i < 2000 && !condition(); ++i) {
    io.waitScope.poll();
    usleep(1000);
  }
  return condition();
}

// T53
TEST_CASE("a grant is cut for both ends, and forgotten when they have closed") {
  auto io = kj::setupAsyncIo();
  LiveGrants grants(io.unixEventPort);
  auto pair = newSocketPair(SOCK_STREAM);
  auto other = newSocketPair(SOCK_STREAM);
  auto id = grants.nextId(), second = grants.nextId();
  grants.add(grant(id, "web1", 1000), pair.second);
  grants.add(grant(second, "web2", 1000), other.second);
  CHECK((KJ_REQUIRE_NONNULL(grants.find(id)).vm == "web1"));
  CHECK(grants.cutUnless([](const GrantEntry& entry) { return entry.vm != "web1"; }) == 1);
  char byte;
  CHECK(recv(pair.first, &byte, 1, MSG_DONTWAIT) == 0);
  CHECK(send(pair.second, &byte, 1, MSG_DONTWAIT | MSG_NOSIGNAL) < 0);
  CHECK(soon(io, [&]() { return grants.size() == 1; }));
  // What its session reports of it a moment later still has a name.
  CHECK((KJ_REQUIRE_NONNULL(grants.find(id)).vm == "web1"));
  // The caller closes, and then the session, which sees it.
  other.first = nullptr;
  KJ_SYSCALL(shutdown(other.second, SHUT_WR));
  CHECK(soon(io, [&]() { return grants.size() == 0; }));
}

TEST_CASE("a user has room for so many grants, and another one for as many") {
  auto io = kj::setupAsyncIo();
  LiveGrants grants(io.unixEventPort);
  kj::Vector<SocketPair> pairs;
  for (unsigned i = 0; i < MAX_GRANTS_PER_USER; ++i) {
    CHECK(grants.hasRoomFor(1000));
    auto& pair = pairs.add(newSocketPair(SOCK_STREAM));
    grants.add(grant(grants.nextId(), "web1", 1000), pair.second);
  }
  CHECK_FALSE(grants.hasRoomFor(1000));
  CHECK(grants.hasRoomFor(1001));
  pairs[0].first = nullptr;
  KJ_SYSCALL(shutdown(pairs[0].second, SHUT_RDWR));
  CHECK(soon(io, [&]() { return grants.hasRoomFor(1000); }));
}

TEST_CASE("a posternd gives no number of a grant that an earlier one may have given") {
  auto io = kj::setupAsyncIo();
  uint64_t last;
  {
    LiveGrants earlier(io.unixEventPort);
    for (int i = 0; i < 100; ++i) last = earlier.nextId();
  }
  usleep(2000);
  LiveGrants later(io.unixEventPort);
  CHECK(later.nextId() > last);
}

// ProcessWatch -----------------------------------------------------------------------------------------------------

pid_t startSleeper() {
  pid_t pid = fork();
  REQUIRE(pid >= 0);
  if (pid == 0) {
    pause();
    _exit(0);
  }
  return pid;
}

TEST_CASE("the end of a process is seen, and seen again when it is asked for after it was reported") {
  auto io = kj::setupAsyncIo();
  auto pid = startSleeper();
  ProcessWatch watch(io.unixEventPort, pid);
  auto ended = watch.whenEnded();
  CHECK_FALSE(ended.poll(io.waitScope));
  watch.kill();
  CHECK(soon(io, [&]() { return ended.poll(io.waitScope); }));
  CHECK(watch.whenEnded().poll(io.waitScope));
  CHECK(waitpid(pid, nullptr, WNOHANG) < 0);  // it was reaped
  watch.kill();                               // reaches nobody
}

TEST_CASE("an end that came while nobody waited is seen, too") {
  auto io = kj::setupAsyncIo();
  auto pid = startSleeper();
  ProcessWatch watch(io.unixEventPort, pid);
  { auto dropped = watch.whenEnded(); }
  watch.kill();
  siginfo_t info;
  KJ_SYSCALL(waitid(P_PID, static_cast<id_t>(pid), &info, WEXITED | WNOWAIT));
  for (int i = 0; i < 10; ++i) io.waitScope.poll();  // the event port hears of it, and tells nobody
  CHECK(watch.whenEnded().poll(io.waitScope));
}

TEST_CASE("there is nothing to watch of a process that is gone") {
  auto io = kj::setupAsyncIo();
  auto pid = startSleeper();
  kill(pid, SIGKILL);
  KJ_SYSCALL(waitpid(pid, nullptr, 0));
  CHECK_THROWS(ProcessWatch(io.unixEventPort, pid));
}

// LocalRpc ---------------------------------------------------------------------------------------------------------

struct Opener final : public schema::Control::Server {
  kj::AutoCloseFd given;
  size_t longest = 0;
  unsigned calls = 0;
  unsigned* cancelled = nullptr;

  kj::Promise<void> open(OpenContext context) override {
    longest = kj::max(longest, context.getParams().getVm().size());
    struct Bare final : public schema::Descriptor::Server {};
    if (given == nullptr) {
      context.getResults().setSocket(kj::heap<Bare>());
    } else {
      context.getResults().setSocket(newDescriptor(kj::mv(given)));
    }
    return kj::READY_NOW;
  }
  kj::Promise<void> status(StatusContext context) override {
    context.allowCancellation();
    ++calls;
    return kj::Promise<void>(kj::NEVER_DONE).attach(kj::defer([this]() {
      if (cancelled != nullptr) ++*cancelled;
    }));
  }
};

struct RpcPair {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  Opener* opener;
  kj::Maybe<kj::Own<LocalRpc>> server, client;
  kj::AutoCloseFd raw;

  explicit RpcPair(uint64_t flowWords = LOCAL_FLOW_WORDS, bool isRaw = false) {
    auto pair = newSocketPair(SOCK_STREAM);
    auto served = kj::heap<Opener>();
    opener = served.get();
    server =
        kj::heap<LocalRpc>(*io.lowLevelProvider, kj::mv(pair.first), kj::mv(served), LOCAL_MESSAGE_WORDS, flowWords);
    if (isRaw) {
      raw = kj::mv(pair.second);
    } else {
      client = kj::heap<LocalRpc>(*io.lowLevelProvider, kj::mv(pair.second), LOCAL_MESSAGE_WORDS, Descriptors::ANY);
    }
  }
  schema::Control::Client control() { return KJ_REQUIRE_NONNULL(client)->peer().castAs<schema::Control>(); }
};

TEST_CASE("a descriptor arrives as one of the receiver's own; a capability without one gives none") {
  RpcPair rpc;
  auto carried = newSocketPair(SOCK_STREAM);
  rpc.opener->given = kj::mv(carried.first);
  auto answer = rpc.control().openRequest().send().wait(rpc.io.waitScope);
  auto taken = takeDescriptor(answer.getSocket()).wait(rpc.io.waitScope);
  auto& socket = KJ_REQUIRE_NONNULL(taken);
  REQUIRE(write(socket, "x", 1) == 1);
  char byte = 0;
  CHECK(read(carried.second, &byte, 1) == 1);
  CHECK(byte == 'x');
  auto again = rpc.control().openRequest().send().wait(rpc.io.waitScope);
  CHECK((takeDescriptor(again.getSocket()).wait(rpc.io.waitScope) == nullptr));
}

TEST_CASE("several descriptors travel in one message to a peer that trusts the sender, in their order") {
  struct Session final : public schema::SessionControl::Server {
    kj::Vector<kj::AutoCloseFd> came;
    kj::Promise<void> introduce(IntroduceContext context) override {
      auto params = context.getParams();
      kj::Vector<kj::Promise<kj::Maybe<kj::AutoCloseFd>>> taken;
      taken.add(takeDescriptor(params.getSocket()));
      for (auto service : params.getGrant().getServices()) taken.add(takeDescriptor(service.getMirror().getSocket()));
      return kj::joinPromises(taken.releaseAsArray()).then([this](kj::Array<kj::Maybe<kj::AutoCloseFd>> all) {
        for (auto& fd : all) {
          KJ_IF_MAYBE (f, fd) came.add(kj::mv(*f));
        }
      });
    }
  };
  auto io = kj::setupAsyncIo();
  auto pair = newSocketPair(SOCK_STREAM);
  auto served = kj::heap<Session>();
  auto& session = *served;
  LocalRpc server(*io.lowLevelProvider, kj::mv(pair.first), kj::mv(served), LOCAL_MESSAGE_WORDS, LOCAL_FLOW_WORDS,
                  Descriptors::ANY);
  LocalRpc client(*io.lowLevelProvider, kj::mv(pair.second));
  constexpr unsigned MIRRORS = MAX_TRUSTED_DESCRIPTORS - 1;
  kj::Vector<SocketPair> carried;
  for (unsigned i = 0; i < MIRRORS + 1; ++i) carried.add(newSocketPair(SOCK_STREAM));
  auto request = client.peer().castAs<schema::SessionControl>().introduceRequest();
  request.setSocket(newDescriptor(kj::mv(carried[0].first)));
  auto services = request.initGrant().initServices(MIRRORS);
  for (unsigned i = 0; i < MIRRORS; ++i) {
    services[i].initMirror().setSocket(newDescriptor(kj::mv(carried[i + 1].first)));
  }
  request.send().wait(io.waitScope);
  REQUIRE(session.came.size() == MIRRORS + 1);
  for (unsigned i = 0; i < MIRRORS + 1; ++i) {
    char byte = static_cast<char>(i), got = -1;
    REQUIRE(write(session.came[i], &byte, 1) == 1);
    CHECK(read(carried[i].second, &got, 1) == 1);
    CHECK(got == byte);
  }
}

// T92
TEST_CASE("descriptors whose close takes its time hold up nobody to whom they are passed, read or unread") {
  std::vector<postern::test::LingeringTcp> lingering(8);
  auto io = kj::setupAsyncIo();
  auto began = kj::systemPreciseMonotonicClock().now();
  for (auto taken : {true, false}) {
    auto pair = newSocketPair(SOCK_STREAM);
    // Before the socket refuses them. In the middle of a message, where no descriptor belongs; and behind it.
    const char words[] = "\0\0\0\0\4\0\0\0";
    for (int i = 0; i < 4; ++i) {
      auto& one = lingering[size_t(i + 4 * taken)].socket;
      CHECK(postern::test::sendAlong(pair.second, kj::arrayPtr(words, 8), kj::mv(one)) == 8);
    }
    kj::Maybe<kj::Own<PassedSockets>> passed;
    if (taken) passed = kj::refcounted<PassedSockets>();
    LocalRpc rpc(*io.lowLevelProvider, kj::mv(pair.first), kj::heap<Opener>(), LOCAL_MESSAGE_WORDS, LOCAL_FLOW_WORDS,
                 Descriptors::NONE, kj::mv(passed));
    auto over = rpc.onDisconnect().catch_([](kj::Exception&&) {});
    for (int i = 0; i < 10; ++i) over.poll(io.waitScope);
  }
  io.waitScope.poll();
  CHECK(kj::systemPreciseMonotonicClock().now() - began < 5 * kj::SECONDS);
}

TEST_CASE("a message above the limit ends its connection") {
  RpcPair rpc;
  auto fits = rpc.control().openRequest();
  fits.setVm(kj::str(kj::repeat('x', 100 << 10)));
  fits.send().wait(rpc.io.waitScope);
  CHECK(rpc.opener->longest == 100 << 10);
  auto tooLarge = rpc.control().openRequest();
  tooLarge.setVm(kj::str(kj::repeat('x', LOCAL_MESSAGE_WORDS * 8 + 1)));
  CHECK_THROWS(tooLarge.send().wait(rpc.io.waitScope));
  CHECK(rpc.opener->longest == 100 << 10);
}

TEST_CASE("bytes that are no message end their connection, however they are cut") {
  for (auto text : {"\xff\xff\xff\xff\xff\xff\xff\xff", "GET / HTTP/1.1\r\n\r\n", "\0\0\0\0\xff\xff\xff\x7f"}) {
    RpcPair rpc(LOCAL_FLOW_WORDS, /* isRaw */ true);
    auto over = KJ_REQUIRE_NONNULL(rpc.server)->onDisconnect().catch_([](kj::Exception&&) {});
    REQUIRE(write(rpc.raw, text, 8) == 8);
    CHECK(soon(rpc.io, [&]() { return over.poll(rpc.io.waitScope); }));
  }
}

TEST_CASE("a peer that calls and calls is not read further; when it goes, its calls are cancelled") {
  RpcPair rpc(1 << 10);
  kj::Vector<kj::Promise<void>> answers;
  for (int i = 0; i < 2000; ++i) {
    answers.add(rpc.control().statusRequest().send().ignoreResult().eagerlyEvaluate([](kj::Exception&&) {}));
  }
  for (int i = 0; i < 50; ++i) rpc.io.waitScope.poll();
  CHECK(rpc.opener->calls > 0);
  CHECK(rpc.opener->calls < 1000);
  auto held = rpc.opener->calls;
  rpc.client = nullptr;
  auto over = KJ_REQUIRE_NONNULL(rpc.server)->onDisconnect();
  CHECK(soon(rpc.io, [&]() { return over.poll(rpc.io.waitScope); }));
  unsigned cancelled = 0;
  rpc.opener->cancelled = &cancelled;
  rpc.server = nullptr;  // as its owner does then
  CHECK(soon(rpc.io, [&]() { return cancelled == held; }));
}

}  // namespace
}  // namespace postern::host
