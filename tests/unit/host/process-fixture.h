#pragma once
// ProcessLab: the inside of a session process, with posternds that come and go, and guests that connect as in HubLab,
// over Control.link. What posternd is told is kept.

#include <string.h>
#include <sys/un.h>

#include <map>

#include "host/session/session-process.h"
#include "tests/unit/host/hub-fixture.h"

namespace postern::host::test {

// What posternd has been told of channels.
struct ToldOfChannels {
  struct Traffic {
    uint64_t bytesThere = 0, bytesBack = 0, messagesThere = 0, messagesBack = 0, throttled = 0;
    static Traffic of(schema::Traffic::Reader from) {
      return {from.getBytesThere(), from.getBytesBack(), from.getMessagesThere(), from.getMessagesBack(),
              from.getThrottledNanoseconds()};
    }
  };
  struct Closed {
    kj::String why;
    Traffic traffic;
    size_t countersBefore;  // how often counters had come by then
    uint64_t microseconds;
  };
  struct Counters {
    uint32_t active = 0;
    uint64_t opened = 0, refused = 0, mirrorDropped = 0;
    Traffic traffic;
  };
  kj::Vector<uint64_t> opened;
  std::map<uint64_t, Closed> closed;
  kj::Vector<kj::String> refused;  // "grant service: why xN"
  size_t counters = 0;             // how often they came
  Counters port;
  std::map<std::string, Counters> rules;
  using ConnectContext =
      capnp::CallContext<schema::SessionObserver::ConnectParams, schema::SessionObserver::ConnectResults>;
  kj::Function<kj::Promise<void>(ConnectContext)> onConnect = [](ConnectContext) -> kj::Promise<void> {
    return kj::READY_NOW;
  };
  size_t asked = 0;
  size_t states = 0;  // how often the session's state came
  bool connected = false;
};

struct Observed final : public schema::SessionObserver::Server {
  kj::Vector<kj::String>& seen;
  bool answers;
  ToldOfChannels* told;
  ToldOfChannels nobody;
  explicit Observed(kj::Vector<kj::String>& seen, bool answers = true, ToldOfChannels* told = nullptr)
      : seen(seen), answers(answers), told(told == nullptr ? &nobody : told) {}

  kj::Promise<void> done() { return answers ? kj::Promise<void>(kj::READY_NOW) : kj::Promise<void>(kj::NEVER_DONE); }
  kj::Promise<void> stateChanged(StateChangedContext context) override {
    ++told->states;
    told->connected = context.getParams().getState().getConnected();
    return done();
  }
  kj::Promise<void> event(EventContext context) override {
    seen.add(kj::str(static_cast<unsigned>(context.getParams().getKind()), ' ', context.getParams().getText()));
    return done();
  }
  kj::Promise<void> operation(OperationContext context) override {
    auto params = context.getParams();
    seen.add(kj::str("operation ", params.getGrant(), ' ', params.getCall(), ": ", params.getOutcome()));
    return done();
  }
  kj::Promise<void> pings(PingsContext context) override {
    uint64_t count = 0;
    for (auto n : context.getParams().getCounts()) count += n;
    seen.add(kj::str("pings ", count, " and ", context.getParams().getFailures()));
    return done();
  }
  kj::Promise<void> connect(ConnectContext context) override {
    context.allowCancellation();
    ++told->asked;
    return told->onConnect(context);
  }
  kj::Promise<void> channelOpened(ChannelOpenedContext context) override {
    told->opened.add(context.getParams().getId());
    return done();
  }
  kj::Promise<void> channelRefused(ChannelRefusedContext context) override {
    auto params = context.getParams();
    told->refused.add(
        kj::str(params.getGrant(), ' ', params.getService(), ": ", params.getWhy(), " x", params.getCount()));
    return done();
  }
  kj::Promise<void> channelClosed(ChannelClosedContext context) override {
    auto params = context.getParams();
    told->closed.emplace(params.getId(), ToldOfChannels::Closed{kj::str(params.getWhy()),
                                                                ToldOfChannels::Traffic::of(params.getTraffic()),
                                                                told->counters, params.getMicroseconds()});
    return done();
  }
  kj::Promise<void> traffic(TrafficContext context) override {
    auto params = context.getParams();
    ++told->counters;
    told->port = {params.getActive(), params.getOpened(), params.getRefused(), params.getMirrorDropped(),
                  ToldOfChannels::Traffic::of(params.getOutOf())};
    told->rules.clear();
    for (auto rule : params.getRules()) {
      told->rules[rule.getRule().cStr()] = {rule.getActive(), rule.getOpened(), rule.getRefused(), 0,
                                            ToldOfChannels::Traffic::of(rule.getTraffic())};
    }
    return done();
  }
};

class ProcessLab : public HubLab {
 public:
  kj::String path = file.folder.path("web1.sock");
  SessionProcess process;
  kj::Promise<void> running;

  ProcessLab()
      : process("web1", *keys, {io.unixEventPort, scratch, environment}, *io.lowLevelProvider, listen()),
        running(process.run().eagerlyEvaluate(nullptr)) {}

  kj::AutoCloseFd listen() {
    struct sockaddr_un address {};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path.begin(), path.size());
    int fd;
    KJ_SYSCALL(fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    kj::AutoCloseFd listening(fd);
    KJ_SYSCALL(bind(fd, reinterpret_cast<struct sockaddr*>(&address), sizeof(address)));
    KJ_SYSCALL(::listen(fd, 4));
    return listening;
  }
  kj::AutoCloseFd dial() {
    struct sockaddr_un address {};
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path, path.begin(), path.size());
    int fd;
    KJ_SYSCALL(fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    kj::AutoCloseFd socket(fd);
    KJ_SYSCALL(::connect(fd, reinterpret_cast<struct sockaddr*>(&address), sizeof(address)));
    return socket;
  }
};

struct Posternd {
  kj::Vector<kj::String> seen;
  ToldOfChannels told;
  kj::AutoCloseFd reports;
  LocalRpc rpc;
  schema::SessionControl::Client control;
  kj::Maybe<capnp::Response<schema::SessionControl::AttachResults>> attached;

  explicit Posternd(ProcessLab& lab, bool answers = true)
      : rpc(*lab.io.lowLevelProvider, lab.dial()), control(rpc.peer().castAs<schema::SessionControl>()) {
    auto pair = newSocketPair(SOCK_SEQPACKET);
    reports = kj::mv(pair.first);
    auto request = control.attachRequest();
    request.setObserver(kj::heap<Observed>(seen, answers, &told));
    request.setReports(newDescriptor(kj::mv(pair.second)));
    attached = request.send().wait(lab.io.waitScope);
  }

  // A guest, over a descriptor that is passed.
  kj::Promise<bool> link(kj::AutoCloseFd socket) {
    auto request = control.linkRequest();
    request.setTransport(static_cast<uint8_t>(TransportKind::UNIX));
    request.setPeer("here");
    request.setSocket(newDescriptor(kj::mv(socket)));
    return request.send().then([](auto answer) { return answer.getOutcome().getProved(); });
  }

  struct Caller {
    kj::Own<LocalRpc> rpc;
    schema::VmCalls::Client calls;
  };
  Caller introduce(
      ProcessLab& lab, uint64_t id, kj::ArrayPtr<const kj::StringPtr> granted,
      kj::FunctionParam<void(schema::Grant::Builder)> fill = [](schema::Grant::Builder) {}) {
    auto pair = newSocketPair(SOCK_STREAM);
    auto request = control.introduceRequest();
    request.setSocket(newDescriptor(kj::mv(pair.second)));
    auto grant = request.initGrant();
    grant.setId(id);
    auto list = grant.initCalls(static_cast<unsigned>(granted.size()));
    for (unsigned i = 0; i < list.size(); ++i) list.set(i, granted[i]);
    grant.initCaller().initUser().setName("alice");
    fill(grant);
    request.send().wait(lab.io.waitScope);
    auto rpc = kj::heap<LocalRpc>(*lab.io.lowLevelProvider, kj::mv(pair.first));
    auto calls = rpc->peer().castAs<schema::VmCalls>();
    return {kj::mv(rpc), kj::mv(calls)};
  }
};

// A guest that connects through Control.link.
struct LinkedGuest {
  LabGuest guest;
  kj::Promise<bool> proved = nullptr;
};

inline void linkUp(ProcessLab& lab, Posternd& posternd, LinkedGuest& linked, LabAgent& agent,
                   GuestCredentials credentials) {
  auto pair = newSocketPair(SOCK_STREAM);
  linked.proved = posternd.link(kj::mv(pair.first)).eagerlyEvaluate(nullptr);
  lab.attach(linked.guest, agent, kj::mv(credentials), kj::mv(pair.second));
  lab.settle();
}

inline LabAgent enrol(ProcessLab& lab, Posternd& posternd) {
  auto agent = lab.newAgent();
  {
    LinkedGuest linked;
    linkUp(lab, posternd, linked, agent, agent.enrolment());
    REQUIRE(linked.guest.isIn());
    REQUIRE(lab.commit(linked.guest, agent));
  }
  lab.settle();
  return agent;
}

inline bool has(const kj::Vector<kj::String>& lines, kj::StringPtr part) {
  for (auto& line : lines) {
    if (strstr(line.cStr(), part.cStr()) != nullptr) return true;
  }
  return false;
}

}  // namespace postern::host::test
