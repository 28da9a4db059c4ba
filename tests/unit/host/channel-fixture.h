#pragma once
// ChannelLab: a session process with a posternd and a connected guest, for channels: the guest serves services and asks
// for them over the real link; callers' and other sessions' sockets are real ones.

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>

#include <string>

#include "tests/unit/host/process-fixture.h"
#include "transport/relay/relay-end.h"

namespace postern::host::test {

// As many descriptors as this process may have, until it goes.
class MoreDescriptors {
 public:
  MoreDescriptors() {
    KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &before));
    struct rlimit more = before;
    more.rlim_cur = more.rlim_max;
    KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &more));
  }
  ~MoreDescriptors() { setrlimit(RLIMIT_NOFILE, &before); }
  KJ_DISALLOW_COPY(MoreDescriptors);
  bool areEnough(rlim_t wanted) const { return before.rlim_max >= wanted; }

 private:
  struct rlimit before;
};

// An end of a socket, by hand.
struct TestSocket {
  kj::AutoCloseFd fd;

  void write(kj::StringPtr text) {
    REQUIRE(::send(fd, text.begin(), text.size(), MSG_NOSIGNAL) == ssize_t(text.size()));
  }
  // What there is now; `ended` once it has.
  std::string read(bool* ended = nullptr) {
    std::string all;
    char space[1 << 16];
    for (;;) {
      auto got = recv(fd, space, sizeof(space), MSG_DONTWAIT);
      if (got == 0 && ended != nullptr) *ended = true;
      if (got <= 0) return all;
      all.append(space, size_t(got));
    }
  }
  bool isOver() {
    char byte;
    auto got = recv(fd, &byte, 1, MSG_DONTWAIT | MSG_PEEK);
    return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK);
  }
  void finish() { shutdown(fd, SHUT_WR); }
};

// What the guest does when it is asked for a service.
struct ServingGuest {
  kj::Maybe<Session&> session;
  kj::Vector<kj::Own<BulkChannel>> channels;
  kj::Vector<kj::String> asked;  // "service by caller"
  enum class Answer { YES, NEVER, DENIED, NOT_EXPORTED, NOT_REACHED, FAILS } answer = Answer::YES;
  kj::Maybe<kj::Promise<void>> before;  // YES waits for this
  kj::Vector<kj::String> exports;
  bool refusesList = false;
  unsigned callersReleased = 0;

  struct Calls final : public wire::GuestCalls::Server {
    Calls(ServingGuest& guest, wire::Caller::Reader caller)
        : guest(guest), caller(caller.isVm() ? kj::str("vm:", caller.getVm()) : kj::str(caller.getUser().getName())) {}
    ~Calls() noexcept(false) { ++guest.callersReleased; }

    kj::Promise<void> connect(ConnectContext context) override {
      context.allowCancellation();
      auto params = context.getParams();
      guest.asked.add(kj::str(params.getService(), " by ", caller));
      auto refuse = [&](wire::Refusal::Reason reason) {
        auto refusal = context.getResults().initRefusal();
        refusal.setReason(reason);
        refusal.setRule("theirs");
        refusal.setSuggestion("[[allow]]\n");
      };
      switch (guest.answer) {
        case Answer::NEVER:
          return kj::NEVER_DONE;
        case Answer::FAILS:
          return KJ_EXCEPTION(FAILED, "a secret of the guest");
        case Answer::DENIED:
          refuse(wire::Refusal::Reason::DENIED);
          return kj::READY_NOW;
        case Answer::NOT_EXPORTED:
          refuse(wire::Refusal::Reason::UNSUPPORTED);
          return kj::READY_NOW;
        case Answer::NOT_REACHED:
          refuse(wire::Refusal::Reason::FAILED);
          return kj::READY_NOW;
        case Answer::YES:
          break;
      }
      auto accepted =
          KJ_REQUIRE_NONNULL(guest.session).bulk().accept(BulkOffer{params.getChannel(), params.getCredit()});
      guest.channels.add(kj::mv(accepted.get<kj::Own<BulkChannel>>()));
      KJ_IF_MAYBE (wait, guest.before) return kj::mv(*wait);
      return kj::READY_NOW;
    }
    kj::Promise<void> services(ServicesContext context) override {
      if (guest.refusesList) {
        context.getResults().initRefusal().setReason(wire::Refusal::Reason::DENIED);
        return kj::READY_NOW;
      }
      auto list = context.getResults().initServices(static_cast<unsigned>(guest.exports.size()));
      for (unsigned i = 0; i < list.size(); ++i) list.set(i, guest.exports[i]);
      return kj::READY_NOW;
    }

    ServingGuest& guest;
    const kj::String caller;
  };
  struct Agent final : public wire::Guest::Server {
    explicit Agent(ServingGuest& guest) : guest(guest) {}
    kj::Promise<void> callsFor(CallsForContext context) override {
      context.getResults().setCalls(kj::heap<Calls>(guest, context.getParams().getCaller()));
      return kj::READY_NOW;
    }
    ServingGuest& guest;
  };
};

// Numbers of a limit.
struct LimitOf {
  uint64_t rate = 0, burst = 0, open = 0, calls = 0, bytes = 0;
  uint16_t zero = 0;
  void write(schema::Limit::Builder out, kj::StringPtr rule) const {
    out.setRule(rule);
    out.setRate(rate);
    out.setBurst(burst);
    out.setOpen(open);
    out.setCalls(calls);
    out.setBytes(bytes);
    out.setZero(zero);
  }
};

// Under which a program of the host gets its services.
struct Terms {
  LimitOf rule = {};
  kj::Maybe<LimitOf> port = nullptr;
  kj::AutoCloseFd mirror = nullptr;
  bool isMirrored = false;
  bool full = false;
};

class ChannelLab : public ProcessLab {
 public:
  kj::Own<Posternd> posternd = kj::heap<Posternd>(*this);
  ServingGuest guest;
  LabAgent agent = enrol(*this, *posternd);
  LinkedGuest linked;

  ChannelLab() { linkGuest(linked); }
  ~ChannelLab() noexcept(false) {
    // What is under way is cancelled in the turns that follow.
    kill(linked.guest);
    posternd = nullptr;
    settle();
  }

  void linkGuest(LinkedGuest& to) {
    agent.bootstrap = [this]() { return wire::Guest::Client(kj::heap<ServingGuest::Agent>(guest)); };
    linkUp(*this, *posternd, to, agent, agent.identity());
    REQUIRE(to.guest.isIn());
    guest.session = *KJ_REQUIRE_NONNULL(to.guest.session);
  }
  ToldOfChannels& told() { return posternd->told; }
  Session& guestSession() { return *KJ_REQUIRE_NONNULL(linked.guest.session); }

  // Turns the loop until it is so; a hand-turned clock does not go on meanwhile.
  template <typename Condition>
  bool soon(Condition&& condition) {
    for (int i = 0; i < 5000 && !condition(); ++i) {
      settle();
      if (!condition()) usleep(1000);
    }
    return condition();
  }
  // For what is to stay as it is: long enough for it to change.
  void turn() {
    for (int i = 0; i < 30; ++i) {
      settle();
      usleep(1000);
    }
  }
  template <typename T>
  T take(kj::Promise<T> promise) {
    auto kept = promise.eagerlyEvaluate(nullptr);
    REQUIRE(soon([&]() { return kept.poll(io.waitScope); }));
    return kept.wait(io.waitScope);
  }
  // What the teller has in hand is told: ends that come one after the other wait for a moment.
  void tellAll() {
    settle();
    advance(1 * kj::SECONDS);
  }

  // A program of the host, with these services by the rule "r".
  Posternd::Caller introduce(std::initializer_list<kj::StringPtr> services, Terms terms = {}, uint64_t grantId = 7) {
    kj::Vector<kj::String> calls;
    for (auto name : services) calls.add(kj::str("service.", name));
    auto names = KJ_MAP(call, calls)->kj::StringPtr {
      return call;
    };
    return posternd->introduce(*this, grantId, names, [&](schema::Grant::Builder grant) {
      auto list = grant.initServices(static_cast<unsigned>(calls.size()));
      for (unsigned i = 0; i < list.size(); ++i) {
        list[i].setCall(calls[i]);
        list[i].setRule("r");
        terms.rule.write(list[i].initLimit(), "r");
        if (!terms.isMirrored) continue;
        auto mirror = list[i].initMirror();
        if (terms.mirror != nullptr) mirror.setSocket(newDescriptor(kj::mv(terms.mirror)));
        mirror.setFull(terms.full);
        mirror.setWho("user:alice");
        mirror.setTo("vm:web1");
      }
      KJ_IF_MAYBE (port, terms.port) port->write(grant.initPort(), "");
    });
  }
  void setLimits(const LimitOf& port, const LimitOf& rule) {
    auto request = posternd->control.setLimitsRequest();
    port.write(request.initPort(), "");
    rule.write(request.initRules(1)[0], "r");
    take(request.send().ignoreResult());
  }

  using Connected = capnp::Response<schema::VmCalls::ConnectResults>;
  // The caller's end of a new socket pair becomes `mine`.
  kj::Promise<Connected> connect(Posternd::Caller& caller, TestSocket& mine, kj::StringPtr service = "http"_kj,
                                 int type = SOCK_STREAM) {
    auto pair = newSocketPair(type);
    mine.fd = kj::mv(pair.first);
    return connectWith(caller, kj::mv(pair.second), service);
  }
  kj::Promise<Connected> connectWith(Posternd::Caller& caller, kj::AutoCloseFd theirs,
                                     kj::StringPtr service = "http"_kj) {
    auto request = caller.calls.connectRequest();
    request.setService(service);
    if (theirs != nullptr) request.setStream(newDescriptor(kj::mv(theirs)));
    KJ_IF_MAYBE (told, observer) request.setObserver(*told);
    auto promise = request.send().eagerlyEvaluate(nullptr);
    settle();
    return kj::mv(promise);
  }
  // Who connects with what follows.
  kj::Maybe<schema::ChannelObserver::Client> observer;
  // A channel from a caller, open. The guest's end is the last of its channels.
  uint64_t open(Posternd::Caller& caller, TestSocket& mine, kj::StringPtr service = "http"_kj) {
    auto connected = take(connect(caller, mine, service));
    if (connected.hasFailure()) FAIL(connected.getFailure().getText().cStr());
    return connected.getChannel();
  }
  schema::Failure::Kind refusedKind(Posternd::Caller& caller) {
    TestSocket mine;
    auto connected = take(connect(caller, mine));
    REQUIRE(connected.hasFailure());
    return connected.getFailure().getKind();
  }

  // The guest's side of a channel.
  void write(BulkChannel& channel, kj::StringPtr text) { CHECK(take(channel.write(text.asBytes()))); }
  std::string read(BulkChannel& channel, size_t size) {
    std::string all;
    while (all.size() < size) {
      auto got = take(channel.read());
      if (got.is<BulkEnd>()) break;
      auto bytes = got.get<BulkChunk>().bytes();
      all.append(reinterpret_cast<const char*>(bytes.begin()), bytes.size());
    }
    return all;
  }
  BulkEnd endOf(BulkChannel& channel) {
    for (;;) {
      auto got = take(channel.read());
      if (got.is<BulkEnd>()) return got.get<BulkEnd>();
    }
  }
  std::string readSoon(TestSocket& socket, size_t size) {
    std::string all;
    soon([&]() {
      all += socket.read();
      return all.size() >= size;
    });
    return all;
  }

  // The guest asks the host for a service; the answer, and its own channel.
  struct Question {
    kj::Own<BulkChannel> channel;
    kj::Promise<capnp::Response<wire::Host::ConnectResults>> answer = nullptr;
    bool isAnswered(kj::WaitScope& waitScope) { return answer.poll(waitScope); }
  };
  Question askHost(kj::StringPtr to, kj::StringPtr service) {
    auto opened = KJ_REQUIRE_NONNULL(guestSession().bulk().open());
    Question question;
    question.channel = kj::mv(opened.channel);
    question.answer = sendQuestion(to, service, opened.offer);
    return question;
  }
  kj::Promise<capnp::Response<wire::Host::ConnectResults>> sendQuestion(kj::StringPtr to, kj::StringPtr service,
                                                                        const BulkOffer& offer) {
    auto request = linked.guest.host().connectRequest();
    request.setTo(to);
    request.setService(service);
    request.setChannel(offer.channel);
    request.setCredit(offer.credit);
    auto answer = request.send().eagerlyEvaluate(nullptr);
    settle();
    return kj::mv(answer);
  }
  // posternd says yes and hands over a socket whose other end becomes `theirs`.
  void allowQuestions(TestSocket& theirs, int type = SOCK_STREAM, LimitOf rule = {}, kj::Maybe<LimitOf> port = nullptr,
                      kj::AutoCloseFd mirror = nullptr) {
    told().onConnect = [&theirs, type, rule, port,
                        mirror = kj::mv(mirror)](ToldOfChannels::ConnectContext context) mutable -> kj::Promise<void> {
      auto entering = context.getParams().getEntrance().enterRequest();
      auto flow = entering.initFlow();
      flow.setId(context.getParams().getId());
      flow.setRule("r");
      rule.write(flow.initLimit(), "r");
      KJ_IF_MAYBE (p, port) p->write(flow.initPort(), "");
      if (mirror != nullptr) {
        auto out = flow.initMirror();
        out.setSocket(newDescriptor(kj::mv(mirror)));
        out.setFull(true);
        out.setWho("vm:web1");
        out.setTo("vm:db1");
      }
      return entering.send().then([&theirs, type, context](auto answer) mutable {
        if (!answer.getEntered()) return;
        auto results = context.getResults();
        results.setAllowed(true);
        auto pair = newSocketPair(type);
        theirs.fd = kj::mv(pair.first);
        results.setSocket(newDescriptor(kj::mv(pair.second)));
      });
    };
  }

  // Another VM's channel comes to this one's guest; the other session's end becomes `theirs`.
  kj::Promise<schema::ServeOutcome> serve(TestSocket& theirs, uint64_t id = 99, int type = SOCK_SEQPACKET) {
    auto pair = newSocketPair(type);
    theirs.fd = kj::mv(pair.first);
    auto request = posternd->control.serveRequest();
    request.initFlow().setId(id);
    request.initCaller().setVm("web9");
    request.setService("db");
    request.setSocket(newDescriptor(kj::mv(pair.second)));
    auto outcome = request.send().then([](auto answer) { return answer.getOutcome(); }).eagerlyEvaluate(nullptr);
    settle();
    return kj::mv(outcome);
  }
};

}  // namespace postern::host::test
