// File calls from a caller's order to its outcome: the real session, movers and guard, with a guest and an opener that
// a test speaks for.

#include "host/session/file-calls.h"

#include <poll.h>
#include <string.h>

#include <string>
#include <vector>

#include "host/session/vm-calls.h"
#include "protocol/transfer/file-order.h"
#include "protocol/transfer/opener-message.h"
#include "tests/unit/host/hub-fixture.h"

namespace postern::host {
namespace {

namespace wire = postern::schema;
using test::HubLab;
using test::LabAgent;
using test::LabGuest;
using transfer::FileCall;
using Kind = schema::Failure::Kind;
using ProblemKind = transfer::ProblemKind;

struct Log final : public OperationLog {
  struct Line {
    std::string call, outcome, path, entry;
    uint64_t files;
  };
  std::vector<Line> lines;

  bool operation(const OperationRecord& record) override {
    uint64_t files = 0;
    KJ_IF_MAYBE (tally, record.files) files = tally->files;
    lines.push_back({record.call.cStr(), record.outcome.cStr(), record.path.cStr(), record.entry.cStr(), files});
    return true;
  }
};

// What the guest does with an order.
struct Guest {
  kj::Maybe<Session&> session;
  kj::Vector<kj::Own<BulkChannel>> channels;
  size_t asked = 0;
  kj::String path;
  bool special = false;
  enum class Answer { YES, NEVER, REFUSAL, PROBLEM } answer = Answer::YES;

  struct Calls final : public wire::GuestCalls::Server {
    explicit Calls(Guest& guest) : guest(guest) {}
    kj::Promise<void> file(FileContext context) override {
      context.allowCancellation();
      return guest.file(context.getParams(), context.getResults());
    }
    Guest& guest;
  };
  kj::Promise<void> file(wire::GuestCalls::FileParams::Reader params, wire::GuestCalls::FileResults::Builder results) {
    ++asked;
    path = kj::heapString(params.getOrder().getPath().asChars());
    special = params.getOrder().getSpecial();
    switch (answer) {
      case Answer::NEVER:
        return kj::NEVER_DONE;
      case Answer::REFUSAL: {
        auto refusal = results.initRefusal();
        refusal.setReason(wire::Refusal::Reason::DENIED);
        refusal.setRule("theirs");
        refusal.setSuggestion("[[allow]]\nid = \"x\"\n");
        break;
      }
      case Answer::PROBLEM:
        results.initProblem().setKind(ProblemKind::NO_SUCH_FILE);
        break;
      case Answer::YES:
        break;
    }
    if (params.getChannel() != 0) {
      auto accepted = KJ_REQUIRE_NONNULL(session).bulk().accept(BulkOffer{params.getChannel(), params.getCredit()});
      if (answer == Answer::YES) channels.add(kj::mv(accepted.get<kj::Own<BulkChannel>>()));
    }
    return kj::READY_NOW;
  }
};

// A caller's opener, by hand.
struct Opener {
  kj::AutoCloseFd socket;
  transfer::FrameBuilder builder;

  void send(kj::ArrayPtr<const kj::byte> frame) {
    REQUIRE(::send(socket, frame.begin(), frame.size(), MSG_NOSIGNAL) == ssize_t(frame.size()));
  }
  void send(const transfer::Forward& message, kj::ArrayPtr<const kj::byte> content = nullptr) {
    transfer::write(message, builder.init<wire::ToMover>().initForward());
    send(builder.toArray(content));
  }
  void send(const transfer::Backward& message) {
    transfer::write(message, builder.init<wire::ToMover>().initBackward());
    send(builder.toArray());
  }
  // Within five seconds: it is closed by a thread.
  bool isClosed() {
    kj::byte space[1 << 17];
    for (;;) {
      auto size = recv(socket, space, sizeof(space), MSG_DONTWAIT);
      if (size == 0) return true;
      if (size < 0 && errno != EAGAIN) return true;
      pollfd asked{socket, POLLIN, 0};
      if (size < 0 && poll(&asked, 1, 5000) <= 0) return false;
    }
  }
};

transfer::Entry entry(kj::StringPtr name, uint64_t size, transfer::EntryKind kind = transfer::EntryKind::FILE) {
  transfer::Entry entry;
  entry.kind = kind;
  entry.name = kj::str(name);
  entry.mode = 0644;
  entry.size = size;
  entry.inlined = kind == transfer::EntryKind::FILE;
  return entry;
}
transfer::Totals totals(uint64_t files) {
  transfer::Totals totals;
  totals.files = files;
  totals.directories = files;
  totals.bytes = 1000;
  totals.deepest = 3;
  totals.tops = 1;
  return totals;
}

using Answer = capnp::Response<schema::VmCalls::FileResults>;

class Lab : public HubLab {
 public:
  Log audit;
  PortLimits limits{timer};
  TransferLimits transfers{limits};
  ChannelBook channels{{io.unixEventPort, timer, file.random, kj::systemPreciseCalendarClock()}, limits};
  capnp::MallocMessageBuilder message;
  schema::Grant::Builder grant = message.initRoot<schema::Grant>();
  Guest guest;
  LabAgent agent = enrolled();
  LabGuest connection;
  kj::Maybe<schema::VmCalls::Client> calls;

  Lab() {
    agent.calls = wire::GuestCalls::Client(kj::heap<Guest::Calls>(guest));
    connect(connection, agent);
    REQUIRE(connection.isIn());
    guest.session = *KJ_REQUIRE_NONNULL(connection.session);
    grant.setId(42);
    grant.setPath("/srv/www"_kj.asBytes());
    auto files = grant.initFiles(6);
    auto names = grant.initCalls(6);
    for (unsigned i = 0; i < 6; ++i) {
      auto call = transfer::callName(static_cast<FileCall>(i));
      names.set(i, call);
      files[i].setCall(call);
      auto rules = files[i].initScope().initRules(2);
      rules[0].setId("www");
      rules[0].initPaths(2).set(0, "/srv/www");
      rules[0].getPaths().set(1, "/srv/www/**");
      rules[1].setId("zz");
      rules[1].setDenies(true);
      rules[1].initPaths(1).set(0, "/**/*.key");
    }
  }

  schema::VmCalls::Client& vm() {
    if (calls == nullptr)
      calls =
          newVmCalls({*hub, "web1", transfers, channels, audit}, grant.asReader(), {limits.learn(grant.asReader())});
    return KJ_ASSERT_NONNULL(calls);
  }
  // The promise of an answer; the opener's other end is the mover's.
  kj::Promise<Answer> begin(FileCall call, Opener& opener, kj::StringPtr path = "/srv/www", int type = SOCK_SEQPACKET) {
    auto pair = newSocketPair(type);
    opener.socket = kj::mv(pair.first);
    auto request = vm().fileRequest();
    auto order = request.initOrder();
    order.setCall(call);
    order.setPath(path.asBytes());
    order.setSpecial(true);  // not the caller's to say
    request.setOpener(newDescriptor(kj::mv(pair.second)));
    auto promise = request.send().eagerlyEvaluate(nullptr);
    settle();
    return kj::mv(promise);
  }
  kj::Promise<Answer> beginWithout(FileCall call, kj::StringPtr path = "/srv/www") {
    auto request = vm().fileRequest();
    request.initOrder().setCall(call);
    request.getOrder().setPath(path.asBytes());
    auto promise = request.send().eagerlyEvaluate(nullptr);
    settle();
    return kj::mv(promise);
  }
  template <typename Condition>
  bool soon(Condition&& condition) {
    for (int i = 0; i < 5000 && !condition(); ++i) {
      settle();
      usleep(1000);
    }
    return condition();
  }
  Answer answer(kj::Promise<Answer>& promise) {
    REQUIRE(soon([&]() { return promise.poll(io.waitScope); }));
    return promise.wait(io.waitScope);
  }

  // The guest's side of the channel.
  BulkChannel& channel() { return *guest.channels.back(); }
  void say(const transfer::Backward& message) {
    transfer::FrameBuilder builder;
    transfer::write(message, builder.init<wire::Backward>());
    write(builder.toArray());
  }
  void say(const transfer::Forward& message, kj::ArrayPtr<const kj::byte> content = nullptr) {
    transfer::FrameBuilder builder;
    transfer::write(message, builder.init<wire::Forward>());
    write(builder.toArray(content));
  }
  void write(kj::Array<kj::byte> frame) {
    auto written = channel().write(frame);
    REQUIRE(soon([&]() { return written.poll(io.waitScope); }));
    CHECK(written.wait(io.waitScope));
  }
  // What comes over the channel until it ends, or nothing more comes.
  BulkEnd drain(size_t& bytes) {
    for (;;) {
      auto next = channel().read();
      REQUIRE(soon([&]() { return next.poll(io.waitScope); }));
      auto got = next.wait(io.waitScope);
      if (got.is<BulkEnd>()) return got.get<BulkEnd>();
      bytes += got.get<BulkChunk>().bytes().size();
    }
  }
  bool hasNoChannel() {
    return soon([&]() { return KJ_REQUIRE_NONNULL(hub->connected()).session().bulk().openChannels() == 0; });
  }
};

TEST_CASE("a put: the guest gets the order, the caller's frames reach it, and its summary the caller and the audit") {
  Lab lab;
  Opener opener;
  auto promise = lab.begin(FileCall::PUT, opener);
  REQUIRE(lab.guest.channels.size() == 1);
  CHECK((lab.guest.path == "/srv/www"));
  CHECK_FALSE(lab.guest.special);
  lab.say(transfer::Backward(transfer::Ready{true}));
  lab.settle();
  opener.send(transfer::Forward(totals(1)));
  opener.send(transfer::Forward(entry("a.html", 5)), "hello"_kj.asBytes());
  opener.send(transfer::Forward(transfer::Done()));
  lab.settle();
  transfer::Summary summary;
  summary.files = 1;
  summary.bytes = 5;
  summary.sentBytes = 5;
  lab.say(transfer::Backward(summary));
  auto answer = lab.answer(promise);
  REQUIRE(answer.hasSummary());
  CHECK_FALSE(answer.hasFailure());
  CHECK(answer.getSummary().getFiles() == 1);
  REQUIRE(lab.audit.lines.size() == 1);
  CHECK(lab.audit.lines[0].call == "file.put");
  CHECK(lab.audit.lines[0].outcome == "done");
  CHECK(lab.audit.lines[0].path == "/srv/www");
  CHECK(lab.audit.lines[0].files == 1);
  CHECK(lab.hasNoChannel());
  CHECK(opener.isClosed());
}

// T76
TEST_CASE("an entry that the host's policy denies ends a put before the guest hears of it") {
  Lab lab;
  Opener opener;
  auto promise = lab.begin(FileCall::PUT, opener);
  lab.say(transfer::Backward(transfer::Ready{true}));
  lab.settle();
  opener.send(transfer::Forward(totals(1)));
  opener.send(transfer::Forward(entry("server.key", 5)), "hello"_kj.asBytes());
  auto answer = lab.answer(promise);
  REQUIRE(answer.hasProblem());
  CHECK((answer.getProblem().getKind() == ProblemKind::DENIED));
  CHECK((answer.getProblem().getRule() == "zz"));
  size_t bytes = 0;
  CHECK((lab.drain(bytes) == BulkEnd::RESET));
  CHECK(bytes < 200);  // totals, and no entry
  CHECK(lab.audit.lines.back().outcome == "denied");
  CHECK(opener.isClosed());
}

// T76
TEST_CASE("an entry that the host's policy denies ends a get before the caller hears of it") {
  Lab lab;
  Opener opener;
  auto promise = lab.begin(FileCall::GET, opener);
  REQUIRE(lab.guest.channels.size() == 1);
  opener.send(transfer::Backward(transfer::Ready{false}));
  lab.say(transfer::Forward(totals(1)));
  lab.say(transfer::Forward(entry("www", 0, transfer::EntryKind::DIRECTORY)));
  lab.say(transfer::Forward(entry("server.key", 5)), "hello"_kj.asBytes());
  auto answer = lab.answer(promise);
  REQUIRE(answer.hasProblem());
  CHECK((answer.getProblem().getKind() == ProblemKind::DENIED));
  size_t bytes = 0;
  CHECK((lab.drain(bytes) == BulkEnd::RESET));
  CHECK(lab.audit.lines.back().outcome == "denied");
}

TEST_CASE("a guest's refusal is told with its rule and what would allow it, and a problem as it is") {
  Lab lab;
  lab.guest.answer = Guest::Answer::REFUSAL;
  Opener opener;
  auto promise = lab.begin(FileCall::PUT, opener);
  auto refused = lab.answer(promise);
  CHECK((refused.getFailure().getKind() == Kind::DENIED));
  CHECK((refused.getFailure().getLock() == schema::Failure::Lock::GUEST));
  CHECK((refused.getFailure().getRule() == "theirs"));
  CHECK((refused.getFailure().getSuggestion() == "[[allow]]\nid = \"x\"\n"));
  CHECK(lab.audit.lines.back().outcome == "denied by the guest");
  CHECK(lab.hasNoChannel());
  lab.guest.answer = Guest::Answer::PROBLEM;
  promise = lab.begin(FileCall::GET, opener);
  auto problem = lab.answer(promise);
  CHECK((problem.getProblem().getKind() == ProblemKind::NO_SUCH_FILE));
  CHECK(lab.audit.lines.back().outcome == "failed: no-such-file");
  CHECK(lab.hasNoChannel());
}

TEST_CASE("mkdir and remove need no opener, and no channel") {
  Lab lab;
  for (auto call : {FileCall::MKDIR, FileCall::REMOVE}) {
    lab.guest.answer = Guest::Answer::YES;
    auto promise = lab.beginWithout(call);
    auto answer = lab.answer(promise);
    CHECK_FALSE(answer.hasFailure());
    CHECK_FALSE(answer.hasProblem());
    CHECK(lab.audit.lines.back().outcome == "done");
    lab.guest.answer = Guest::Answer::PROBLEM;
    promise = lab.beginWithout(call);
    CHECK(lab.answer(promise).hasProblem());
  }
  CHECK(lab.guest.asked == 4);
  CHECK(lab.hasNoChannel());
}

// T79
TEST_CASE(
    "a call that was not granted, another path than the one that was, and what is no path do not reach the guest") {
  Lab lab;
  auto failure = [&](FileCall call, kj::StringPtr path) {
    Opener opener;
    auto promise = lab.begin(call, opener, path);
    return lab.answer(promise).getFailure().getKind();
  };
  CHECK((failure(FileCall::GET, "/srv/www/other") == Kind::INVALID));
  for (auto path : {"", "/", "srv", "/srv/www/", "/srv/../srv/www", "/srv//www"}) {
    CHECK((failure(FileCall::GET, path) == Kind::INVALID));
  }
  CHECK((failure(static_cast<FileCall>(77), "/srv/www") == Kind::DENIED));
  lab.calls = nullptr;
  lab.grant.initCalls(1).set(0, "file.get");
  CHECK((failure(FileCall::PUT, "/srv/www") == Kind::DENIED));
  // Granted as a call, and denied by its scope all the same.
  lab.calls = nullptr;
  lab.grant.setPath("/srv/www/a.key"_kj.asBytes());
  CHECK((failure(FileCall::GET, "/srv/www/a.key") == Kind::DENIED));
  CHECK(lab.audit.lines.back().outcome == "denied");
  CHECK(lab.guest.asked == 0);
  CHECK(lab.hasNoChannel());
}

TEST_CASE("what is no SOCK_SEQPACKET socket is taken for no opener") {
  Lab lab;
  Opener opener;
  for (int type : {SOCK_STREAM, SOCK_DGRAM}) {
    auto promise = lab.begin(FileCall::PUT, opener, "/srv/www", type);
    CHECK((lab.answer(promise).getFailure().getKind() == Kind::INVALID));
  }
  for (const char* path : {"/dev/null", "/proc/self/exe"}) {
    auto request = lab.vm().fileRequest();
    request.initOrder().setCall(FileCall::PUT);
    request.getOrder().setPath("/srv/www"_kj.asBytes());
    request.setOpener(newDescriptor(kj::AutoCloseFd(open(path, O_RDONLY | O_CLOEXEC))));
    auto promise = request.send().eagerlyEvaluate(nullptr);
    CHECK((lab.answer(promise).getFailure().getKind() == Kind::INVALID));
  }
  auto none = lab.beginWithout(FileCall::PUT);
  CHECK((lab.answer(none).getFailure().getKind() == Kind::INVALID));
  CHECK(lab.guest.asked == 0);
  CHECK(lab.hasNoChannel());
}

TEST_CASE("a guest that does not answer an order has a minute, and its channel ends with it") {
  Lab lab;
  lab.guest.answer = Guest::Answer::NEVER;
  Opener opener;
  auto promise = lab.begin(FileCall::PUT, opener);
  CHECK(lab.guest.asked == 1);
  lab.advance(FILE_CALL_DEADLINE - 1 * kj::SECONDS);
  CHECK_FALSE(promise.poll(lab.io.waitScope));
  lab.advance(2 * kj::SECONDS);
  CHECK((lab.answer(promise).getFailure().getKind() == Kind::TIMED_OUT));
  CHECK(lab.audit.lines.back().outcome == "timed out");
  CHECK(lab.hasNoChannel());
  CHECK(opener.isClosed());
}

TEST_CASE(
    "a transfer has no deadline, and ends with its caller: the guest's channel is reset, the opener's socket closed") {
  Lab lab;
  Opener opener;
  kj::Maybe<kj::Promise<Answer>> promise = lab.begin(FileCall::PUT, opener);
  lab.say(transfer::Backward(transfer::Ready{true}));
  lab.advance(24 * kj::HOURS);
  CHECK_FALSE(KJ_ASSERT_NONNULL(promise).poll(lab.io.waitScope));
  CHECK(lab.audit.lines.empty());
  promise = nullptr;
  lab.settle();
  size_t bytes = 0;
  CHECK((lab.drain(bytes) == BulkEnd::RESET));
  REQUIRE(lab.audit.lines.size() == 1);
  CHECK(lab.audit.lines[0].outcome == "given up");
  CHECK(opener.isClosed());
  CHECK(lab.hasNoChannel());
}

TEST_CASE("a link that ends during a transfer is told as that") {
  Lab lab;
  Opener opener;
  auto promise = lab.begin(FileCall::PUT, opener);
  lab.say(transfer::Backward(transfer::Ready{true}));
  lab.settle();
  lab.kill(lab.connection);
  auto answer = lab.answer(promise);
  CHECK((answer.getFailure().getKind() == Kind::NOT_CONNECTED));
  CHECK(lab.audit.lines.back().outcome == "not connected");
  CHECK(opener.isClosed());
  auto next = lab.begin(FileCall::PUT, opener);
  CHECK((lab.answer(next).getFailure().getKind() == Kind::NOT_CONNECTED));
}

TEST_CASE("an opener that goes away ends its transfer, and a guest that breaks a rule of it does") {
  Lab lab;
  Opener opener;
  auto promise = lab.begin(FileCall::PUT, opener);
  opener.socket = nullptr;
  CHECK(lab.answer(promise).hasProblem());
  CHECK(lab.hasNoChannel());
  promise = lab.begin(FileCall::PUT, opener);
  auto noise = kj::heapArray<kj::byte>(1000);
  for (auto& b : noise) b = 0xff;
  lab.write(kj::mv(noise));
  auto answer = lab.answer(promise);
  CHECK((answer.getProblem().getKind() == ProblemKind::PROTOCOL));
  CHECK(lab.hasNoChannel());
  CHECK(lab.connection.isIn());
}

// T78
TEST_CASE("a VM has so many transfers at a time, and one more is told that it is busy") {
  Lab lab;
  kj::Vector<kj::Promise<Answer>> running;
  std::vector<Opener> openers(transfer::MAX_TRANSFERS);
  for (auto& opener : openers) {
    running.add(lab.begin(FileCall::PUT, opener));
    CHECK_FALSE(running.back().poll(lab.io.waitScope));
  }
  Opener opener;
  auto promise = lab.begin(FileCall::PUT, opener);
  CHECK((lab.answer(promise).getProblem().getKind() == ProblemKind::BUSY));
  CHECK(lab.audit.lines.back().outcome == "failed: busy");
  CHECK(lab.guest.asked == transfer::MAX_TRANSFERS);
  running.removeLast();
  lab.settle();
  promise = lab.begin(FileCall::PUT, opener);
  CHECK_FALSE(promise.poll(lab.io.waitScope));
}

}  // namespace
}  // namespace postern::host
