#include "host/qmp/qmp-watch.h"

#include <kj/debug.h>

#include "host/qmp/qmp-connection.h"
#include "host/qmp/qmp-vm-state.h"
#include "protocol/limits.h"
#include "transport/backoff.h"
#include "transport/connector.h"

namespace postern::host {

namespace {

// Null: QEMU has done it; otherwise why not.
kj::Maybe<kj::String> refusalOf(kj::StringPtr command, QmpConnection::Reply& reply) {
  KJ_SWITCH_ONEOF(reply) {
    KJ_CASE_ONEOF(answer, QmpAnswer) {
      KJ_IF_MAYBE (error, answer.error) return kj::str("QEMU refused ", command, ": ", *error);
      return nullptr;
    }
    KJ_CASE_ONEOF(none, QmpConnection::NoAnswer) return kj::mv(none.why);
    KJ_CASE_ONEOF(ended, QmpConnection::Ended)
    return kj::str("QEMU closed its QMP socket before it answered ", command);
  }
  KJ_UNREACHABLE;
}

class Watch final : public QmpWatch, public QmpConnection::Handler {
 public:
  Watch(kj::UnixEventPort& port, QmpPlace place, Random& random, QmpWatch::Handler& handler)
      : port(port),
        timer(port.getTimer()),
        place(kj::mv(place)),
        handler(handler),
        state(timer, handler),
        backoff(newConnectBackoff(random)),
        lastWhy(kj::str("it is being connected to")),
        loop(kj::evalLater([this] { return keepConnected(); }).eagerlyEvaluate(nullptr)) {}

  kj::Promise<kj::Maybe<kj::String>> force(bool reset) override;
  kj::Promise<kj::String> whenOff(bool reset) override { return state.whenOff(reset); }
  bool isConnected() const override { return ready; }

 private:
  kj::UnixEventPort& port;
  kj::Timer& timer;
  QmpPlace place;
  QmpWatch::Handler& handler;
  QmpVmState state;
  Backoff backoff;

  bool ready = false;         // QEMU serves us
  bool lossReported = false;  // since it last was
  kj::String lastWhy;
  kj::TimePoint readySince = kj::origin<kj::TimePoint>();
  pid_t process = 0;  // who made the socket that was last greeted from; 0: unknown
  pid_t candidate = 0;

  // In the order in which they use one another; the promises go first.
  kj::Maybe<kj::Own<QmpConnection>> connection;
  kj::Maybe<kj::Promise<void>> patience;
  kj::Maybe<kj::Promise<void>> negotiation;
  kj::Promise<void> loop;

  kj::Promise<void> keepConnected();
  kj::Promise<kj::String> attempt();
  kj::Promise<kj::String> serve(Connection accepted);
  void ended(kj::StringPtr why);
  void lost(kj::StringPtr why);
  void greetingIsLate();
  kj::Promise<void> negotiate(QmpConnection& qmp);
  void nowReady();
  void takeStatus(QmpConnection& qmp, QmpConnection::Reply reply);
  bool failUnlessDone(QmpConnection& qmp, kj::StringPtr command, QmpConnection::Reply& reply);

  void qmpGreeting() override;
  void qmpHeard(const QmpEvent& event) override;
};

// Connecting --------------------------------------------------------------------------------------------------------

kj::Promise<void> Watch::keepConnected() {
  return kj::evalNow([this] { return attempt(); })
      .catch_([](kj::Exception&& exception) { return kj::str(exception.getDescription()); })
      .then([this](kj::String why) {
        ended(why);
        return timer.afterDelay(backoff.next());
      })
      .then([this] { return keepConnected(); });
}

// Why there is no connection, or no longer one.
kj::Promise<kj::String> Watch::attempt() {
  return place.connect().then([this](Connected connected) -> kj::Promise<kj::String> {
    KJ_IF_MAYBE (error, connected.tryGet<TransportError>()) {
      if (error->nobodyListens) state.gone();
      return kj::mv(error->text);
    }
    return serve(kj::mv(connected.get<Connection>()));
  });
}

kj::Promise<kj::String> Watch::serve(Connection accepted) {
  candidate = accepted.peer.is<UnixPeer>() ? accepted.peer.get<UnixPeer>().pid : 0;
  // A new QEMU may be there before anybody looked for the old one.
  if (process != 0 && candidate != 0 && candidate != process) state.gone();
  auto& qmp = *connection.emplace(kj::heap<QmpConnection>(timer, newPipe(port, kj::mv(accepted)), *this));
  patience = timer.afterDelay(QMP_ANSWER_DEADLINE).then([this] { greetingIsLate(); }).eagerlyEvaluate(nullptr);
  return qmp.run();  // which may find the greeting at once
}

void Watch::ended(kj::StringPtr why) {
  // One that greets and then misbehaves is not to be connected to five times a second.
  if (ready && timer.now() - readySince > limits::CONNECT_RETRY_MAX) backoff.reset();
  patience = nullptr;
  negotiation = nullptr;
  connection = nullptr;
  ready = false;
  lost(why);
}

void Watch::lost(kj::StringPtr why) {
  lastWhy = kj::str(why);
  if (lossReported) return;
  lossReported = true;
  handler.qmpLost(lastWhy);
}

void Watch::greetingIsLate() {
  KJ_IF_MAYBE (qmp, connection) {
    // With a part of a greeting it is QEMU's turn to end the line, and the connection's to see to that.
    if (!(*qmp)->hasHeard()) lost("another program uses it, and QEMU serves one at a time; or QEMU hangs");
  }
}

// Greeted -----------------------------------------------------------------------------------------------------------

void Watch::qmpGreeting() {
  patience = timer.afterDelay(QMP_ANSWER_DEADLINE)
                 .then([this] { lost("QEMU has greeted and does not answer yet: it is starting, or it hangs"); })
                 .eagerlyEvaluate(nullptr);
  process = candidate;
  negotiation = negotiate(*KJ_ASSERT_NONNULL(connection)).eagerlyEvaluate(nullptr);
}

kj::Promise<void> Watch::negotiate(QmpConnection& qmp) {
  return qmp.command("qmp_capabilities", QMP_START_DEADLINE)
      .then([this, &qmp](QmpConnection::Reply reply) -> kj::Promise<void> {
        if (!failUnlessDone(qmp, "qmp_capabilities", reply)) return kj::READY_NOW;
        nowReady();
        return qmp.command("query-status", QMP_START_DEADLINE).then([this, &qmp](QmpConnection::Reply status) {
          takeStatus(qmp, kj::mv(status));
        });
      })
      .catch_([&qmp](kj::Exception&& exception) { qmp.fail(kj::str(exception.getDescription())); });
}

void Watch::nowReady() {
  patience = nullptr;
  ready = true;
  readySince = timer.now();
  lossReported = false;
  handler.qmpConnected();
}

void Watch::takeStatus(QmpConnection& qmp, QmpConnection::Reply reply) {
  if (!failUnlessDone(qmp, "query-status", reply)) return;
  KJ_IF_MAYBE (status, reply.get<QmpAnswer>().status) return state.answered(*status);
  qmp.fail(kj::str("QEMU answered query-status without a status"));
}

bool Watch::failUnlessDone(QmpConnection& qmp, kj::StringPtr command, QmpConnection::Reply& reply) {
  KJ_IF_MAYBE (why, refusalOf(command, reply)) {
    qmp.fail(kj::mv(*why));
    return false;
  }
  return true;
}

void Watch::qmpHeard(const QmpEvent& event) {
  // QEMU sends none before.
  if (ready) state.heard(event);
}

kj::Promise<kj::Maybe<kj::String>> Watch::force(bool reset) {
  if (!ready) return kj::Maybe<kj::String>(kj::str(place.name, " is not connected: ", lastWhy));
  kj::StringPtr command = reset ? "system_reset"_kj : "quit"_kj;
  return KJ_ASSERT_NONNULL(connection)
      ->command(command)
      .then([command, reset](QmpConnection::Reply reply) -> kj::Maybe<kj::String> {
        // A process that ends may do so before its answer is out.
        if (!reset && reply.is<QmpConnection::Ended>()) return nullptr;
        return refusalOf(command, reply);
      });
}

}  // namespace

kj::Own<QmpWatch> newQmpWatch(kj::UnixEventPort& port, QmpPlace place, Random& random, QmpWatch::Handler& handler) {
  return kj::heap<Watch>(port, kj::mv(place), random, handler);
}

kj::Own<QmpWatch> newQmpWatch(kj::UnixEventPort& port, kj::StringPtr path, Random& random, QmpWatch::Handler& handler) {
  auto connect = [&timer = port.getTimer(), path = kj::str(path)]() -> kj::Promise<Connected> {
    if (path.size() > MAX_SOCKET_PATH_BYTES) {
      return Connected(transportError(path, " is too long for a socket's path"));
    }
    return connectUnix(timer, TransportKind::UNIX, path, limits::CONNECT_TIMEOUT);
  };
  return newQmpWatch(port, QmpPlace{kj::str("QMP socket ", path), kj::mv(connect)}, random, handler);
}

}  // namespace postern::host
