#include <kj/debug.h>
#include <sys/socket.h>

#include <algorithm>
#include <deque>
#include <map>
#include <set>

#include "guest-agent/bounded-text.h"
#include "guest-agent/broker/broker-wire.h"
#include "guest-agent/broker/broker.h"
#include "transport/packet-socket.h"

namespace postern::guest {

namespace {

kj::Exception brokerGone() {
  return KJ_EXCEPTION(DISCONNECTED, "the broker is gone");
}

// Requests that the socket did not take at once. Many more wait as what they ask for, which is far smaller.
constexpr size_t MAX_UNSENT = 16;

struct Reply {
  Answer answer;
  kj::Maybe<kj::AutoCloseFd> fd;
};

BrokerRefusal refusalOf(const Answer& answer) {
  return {boundedText(answer.payload.asChars(), MAX_TEXT_BYTES)};
}

kj::String orFailed(kj::StringPtr text) {
  return text.size() > 0 ? kj::str(text) : kj::str("the broker did not do it");
}

// Requests above the broker's bound wait here.
class SocketBrokerClient final : public BrokerClient {
 public:
  SocketBrokerClient(kj::AutoCloseFd fd, kj::UnixEventPort& port)
      : socket(kj::mv(fd), port, MAX_ANSWER_BYTES, 1),
        reading(read().eagerlyEvaluate([this](kj::Exception&&) { end(); })) {}
  ~SocketBrokerClient() noexcept(false);
  KJ_DISALLOW_COPY(SocketBrokerClient);

  kj::Promise<Connected> connect() override;
  kj::Promise<kj::OneOf<kj::Array<kj::byte>, ProbeTimedOut, BrokerRefusal>> probe(Probe which,
                                                                                  kj::Duration deadline) override;
  kj::Promise<kj::Array<kj::String>> inhibitors(PowerAction action) override {
    return texts(ask(InhibitorsRequest{action}));
  }
  kj::Promise<kj::Array<kj::String>> hooks(PowerAction action) override { return texts(ask(HooksRequest{action})); }
  kj::Promise<kj::Maybe<BrokerRefusal>> runHook(PowerAction action, kj::StringPtr name, kj::StringPtr caller) override {
    if (!isHookName(name)) return kj::Maybe<BrokerRefusal>(BrokerRefusal{kj::str("no hook has such a name")});
    return doneOrRefused(ask(RunHookRequest{action, kj::str(name), kj::str(caller)}));
  }
  kj::Promise<void> tellUsers(kj::StringPtr message) override {
    auto bounded = boundedLines(message, MAX_TELL_BYTES);
    if (bounded.size() == 0) return kj::READY_NOW;
    return ask(TellUsersRequest{kj::mv(bounded)}).ignoreResult();
  }
  kj::Promise<kj::Maybe<BrokerRefusal>> power(PowerAction action, kj::StringPtr caller) override {
    return doneOrRefused(ask(PowerRequest{action, kj::str(caller)}));
  }
  kj::Promise<kj::OneOf<OpenedFiles, FilesRefusal>> openFiles(const transfer::FileOrder& order,
                                                              kj::StringPtr caller) override;
  kj::Promise<kj::OneOf<OpenedService, ServiceRefusal>> openService(kj::StringPtr service,
                                                                    kj::StringPtr caller) override;
  kj::Promise<bool> enrolled() override {
    return ask(EnrolledRequest{}).then([](Reply reply) {
      return reply.answer.outcome == Answer::Outcome::DONE && reply.answer.flag;
    });
  }

 private:
  struct Lane;

  // A promise for one reply. Dropped before it, it cancels the request.
  class Asking {
   public:
    Asking(kj::PromiseFulfiller<Reply>& fulfiller, SocketBrokerClient& client, decltype(Request::what) whatParam)
        : fulfiller(fulfiller),
          client(client),
          what(kj::mv(whatParam)),
          lane(what.is<OpenServiceRequest>() ? client.services : client.others) {
      client.admit(*this);
    }
    ~Asking() noexcept(false) {
      KJ_IF_MAYBE (still, client) still->forget(*this);
    }
    KJ_DISALLOW_COPY(Asking);

    kj::PromiseFulfiller<Reply>& fulfiller;
    kj::Maybe<SocketBrokerClient&> client;  // null once it is answered
    decltype(Request::what) what;
    Lane& lane;
    uint64_t number = 0;  // once it was sent
  };
  // The broker bounds connections to services apart from all else.
  struct Lane {
    const size_t most;
    std::deque<Asking*> waiting;
    size_t sent = 0;  // unanswered
  };
  struct Sent {
    Lane& lane;
    kj::Maybe<Asking&> asking;  // null: cancelled
  };

  // What the broker has started and ends upon Cancel. Refers to the client only while that lives.
  class Started;

  PacketSocket socket;
  bool ended = false;
  std::set<Started*> started;
  uint64_t lastNumber = 0;
  Lane others{MAX_BROKER_REQUESTS, {}};
  Lane services{MAX_SERVICE_REQUESTS, {}};
  std::map<uint64_t, Sent> sent;  // unanswered
  bool waitsForRoom = false;
  kj::Promise<void> room = kj::READY_NOW;
  kj::Promise<void> reading;

  kj::Promise<Reply> ask(decltype(Request::what) what) {
    if (ended) return brokerGone();
    return kj::newAdaptedPromise<Reply, Asking>(*this, kj::mv(what));
  }

  void admit(Asking& asking) {
    asking.lane.waiting.push_back(&asking);
    sendWaiting(asking.lane);
  }
  void sendWaiting(Lane& lane) {
    while (!lane.waiting.empty() && lane.sent < lane.most) {
      if (socket.unsent() >= MAX_UNSENT) return sendWhenRoom();
      auto& asking = *lane.waiting.front();
      lane.waiting.pop_front();
      asking.number = ++lastNumber;
      sent.emplace(asking.number, Sent{lane, asking});
      ++lane.sent;
      socket.send({requestBytes({asking.number, kj::mv(asking.what)})});
    }
  }
  void sendWhenRoom() {
    if (waitsForRoom) return;
    waitsForRoom = true;
    room = sendAsRoomComes().eagerlyEvaluate(nullptr);
  }
  kj::Promise<void> sendAsRoomComes() {
    return socket.whenSent().then([this]() -> kj::Promise<void> {
      sendWaiting(others);
      sendWaiting(services);
      if (socket.unsent() >= MAX_UNSENT) return sendAsRoomComes();
      waitsForRoom = false;
      return kj::READY_NOW;
    });
  }
  void forget(Asking& asking) {
    auto& waiting = asking.lane.waiting;
    if (asking.number == 0) {
      waiting.erase(std::find(waiting.begin(), waiting.end(), &asking));
      return;
    }
    sent.at(asking.number).asking = nullptr;
    cancel(asking.number);
  }
  void cancel(uint64_t number) { socket.send({requestBytes({++lastNumber, CancelRequest{number}})}); }

  // Ends, or fails, when there is no broker any more.
  kj::Promise<void> read() {
    return socket.receive().then([this](kj::OneOf<Packet, PacketsEnded, PacketTooMuch> received) {
      KJ_IF_MAYBE (packet, received.tryGet<Packet>()) {
        take(kj::mv(*packet));
        return read();
      }
      return kj::Promise<void>(brokerGone());
    });
  }
  void take(Packet packet) {
    auto parsed = parseAnswer(packet.bytes);
    auto& answer = KJ_REQUIRE_NONNULL(parsed.tryGet<Answer>(), "the broker's answer is malformed");
    auto found = sent.find(answer.number);
    KJ_REQUIRE(found != sent.end(), "the broker answered what was not asked");
    auto asking = found->second.asking;
    auto& lane = found->second.lane;
    sent.erase(found);
    --lane.sent;
    KJ_IF_MAYBE (one, asking) {
      one->client = nullptr;
      Reply reply{kj::mv(answer), nullptr};
      if (!packet.fds.empty()) reply.fd = kj::mv(packet.fds[0]);
      one->fulfiller.fulfill(kj::mv(reply));
    }
    sendWaiting(lane);
  }
  void end() {
    ended = true;
    for (auto& entry : sent) {
      KJ_IF_MAYBE (asking, entry.second.asking) fail(*asking);
    }
    sent.clear();
    for (auto* lane : {&others, &services}) {
      for (auto* asking : lane->waiting) fail(*asking);
      lane->waiting.clear();
    }
  }
  static void fail(Asking& asking) {
    asking.client = nullptr;
    asking.fulfiller.reject(brokerGone());
  }

  static kj::Promise<kj::Array<kj::String>> texts(kj::Promise<Reply> asked) {
    return asked.then([](Reply reply) { return textsOf(reply.answer.payload); });
  }
  static kj::Promise<kj::Maybe<BrokerRefusal>> doneOrRefused(kj::Promise<Reply> asked) {
    return asked.then([](Reply reply) -> kj::Maybe<BrokerRefusal> {
      if (reply.answer.outcome == Answer::Outcome::DONE) return nullptr;
      return BrokerRefusal{orFailed(refusalOf(reply.answer).text)};
    });
  }
};

kj::Promise<Connected> SocketBrokerClient::connect() {
  return ask(ConnectRequest{}).then([](Reply reply) -> Connected {
    if (reply.answer.outcome != Answer::Outcome::CONNECTED) {
      return TransportError{orFailed(refusalOf(reply.answer).text)};
    }
    KJ_IF_MAYBE (fd, reply.fd) {
      KJ_IF_MAYBE (connection, connectionOf(reply.answer.connection, kj::mv(*fd))) return kj::mv(*connection);
    }
    return TransportError{kj::str("the broker connected, but its descriptor did not arrive; are too many files open?")};
  });
}

kj::Promise<kj::OneOf<kj::Array<kj::byte>, ProbeTimedOut, BrokerRefusal>> SocketBrokerClient::probe(
    Probe which, kj::Duration deadline) {
  using Result = kj::OneOf<kj::Array<kj::byte>, ProbeTimedOut, BrokerRefusal>;
  return ask(ProbeRequest{which, deadline}).then([](Reply reply) -> Result {
    switch (reply.answer.outcome) {
      case Answer::Outcome::DONE:
        return kj::mv(reply.answer.payload);
      case Answer::Outcome::TIMED_OUT:
        return ProbeTimedOut{};
      default:
        return BrokerRefusal{orFailed(refusalOf(reply.answer).text)};
    }
  });
}

class SocketBrokerClient::Started {
 public:
  Started(SocketBrokerClient& client, uint64_t number) : client(client), number(number) { client.started.insert(this); }
  ~Started() noexcept(false) {
    KJ_IF_MAYBE (c, client) {
      c->started.erase(this);
      c->cancel(number);
    }
  }
  KJ_DISALLOW_COPY(Started);

  kj::Maybe<SocketBrokerClient&> client;

 private:
  uint64_t number;
};

SocketBrokerClient::~SocketBrokerClient() noexcept(false) {
  end();
  for (auto* one : started) one->client = nullptr;
}

kj::Promise<kj::OneOf<OpenedFiles, FilesRefusal>> SocketBrokerClient::openFiles(const transfer::FileOrder& order,
                                                                                kj::StringPtr caller) {
  using Result = kj::OneOf<OpenedFiles, FilesRefusal>;
  return ask(OpenFilesRequest{transfer::copy(order), kj::str(caller)}).then([this](Reply reply) -> Result {
    if (reply.answer.outcome != Answer::Outcome::OPENED) {
      auto refusal = filesRefusalOf(reply.answer.payload);
      return FilesRefusal{refusal.kind, orFailed(refusal.text), kj::mv(refusal.rule)};
    }
    auto opener = kj::heap<Started>(*this, reply.answer.number);
    KJ_IF_MAYBE (fd, reply.fd) return OpenedFiles{kj::mv(*fd), kj::mv(opener)};
    return FilesRefusal{FilesRefusal::Kind::FAILED,
                        kj::str("an opener was started, but its descriptor did not arrive; are too many files open?"),
                        kj::String()};
  });
}

kj::Promise<kj::OneOf<OpenedService, ServiceRefusal>> SocketBrokerClient::openService(kj::StringPtr service,
                                                                                      kj::StringPtr caller) {
  using Result = kj::OneOf<OpenedService, ServiceRefusal>;
  return ask(OpenServiceRequest{kj::str(service), kj::str(caller)}).then([this](Reply reply) -> Result {
    if (reply.answer.outcome != Answer::Outcome::OPENED) {
      auto refusal = serviceRefusalOf(reply.answer.payload);
      return ServiceRefusal{refusal.kind, orFailed(refusal.text), kj::mv(refusal.rule)};
    }
    kj::Own<void> program;
    if (reply.answer.flag) program = kj::heap<Started>(*this, reply.answer.number);
    KJ_IF_MAYBE (fd, reply.fd) return OpenedService{kj::mv(*fd), kj::mv(program)};
    return ServiceRefusal{ServiceRefusal::Kind::NOT_REACHED,
                          kj::str("it was reached, but its descriptor did not arrive; are too many files open?"),
                          kj::String()};
  });
}

}  // namespace

kj::Own<BrokerClient> newBrokerClient(kj::AutoCloseFd socket, kj::UnixEventPort& port) {
  return kj::heap<SocketBrokerClient>(kj::mv(socket), port);
}

BrokerSockets newBrokerSockets() {
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, fds));
  return {kj::AutoCloseFd(fds[0]), kj::AutoCloseFd(fds[1])};
}

}  // namespace postern::guest
