#pragma once
// A QMP socket whose server is the test, line by line, and a handler that writes down what it is told.

#include <kj/async-io.h>
#include <kj/debug.h>
#include <kj/vector.h>

#include "host/qmp/qmp-watch.h"
#include "tests/support/temporary-folder.h"
#include "tests/support/test-random.h"

namespace postern::test {

constexpr kj::StringPtr QMP_GREETING =
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \"package\": \"\"}, "
    "\"capabilities\": [\"oob\"]}}\r\n"_kj;

inline kj::StringPtr nameOf(host::QmpWatch::Event event) {
  using Event = host::QmpWatch::Event;
  switch (event) {
    case Event::STOP:
      return "STOP";
    case Event::RESUME:
      return "RESUME";
    case Event::RESET:
      return "RESET";
    case Event::SHUTDOWN:
      return "SHUTDOWN";
    case Event::PORT_OPENED:
      return "PORT_OPENED";
    case Event::PORT_CLOSED:
      return "PORT_CLOSED";
  }
  KJ_UNREACHABLE;
}

class QmpRecorder final : public host::QmpWatch::Handler {
 public:
  kj::Vector<kj::String> told;

  void qmpEvent(host::QmpWatch::Event event) override { told.add(kj::str(nameOf(event))); }
  void qmpConnected() override { told.add(kj::str("connected")); }
  void qmpLost(kj::StringPtr why) override { told.add(kj::str("lost: ", why)); }

  kj::String all() const { return kj::strArray(told, " | "); }
  size_t count(kj::StringPtr start) const {
    size_t result = 0;
    for (auto& line : told) result += line.startsWith(start) ? 1 : 0;
    return result;
  }
};

// One connection's far end.
class FakeQemu {
 public:
  FakeQemu(kj::Own<kj::AsyncIoStream> stream, kj::WaitScope& waitScope)
      : stream(kj::mv(stream)), waitScope(waitScope) {}

  // In one piece, so that one read may find all of it. False: nobody is there any more.
  bool send(kj::StringPtr text) {
    return stream->write(text.begin(), text.size())
        .then([] { return true; }, [](kj::Exception&&) { return false; })
        .wait(waitScope);
  }
  // The client's next line, or what there was before its end.
  kj::String line() {
    kj::Vector<char> text;
    char c;
    while (stream->tryRead(&c, 1, 1)
               .then([](size_t n) { return n; }, [](kj::Exception&&) { return size_t(0); })
               .wait(waitScope) == 1) {
      if (c == '\n') break;
      text.add(c);
    }
    text.add('\0');
    return kj::String(text.releaseAsArray());
  }
  void greet() { send(QMP_GREETING); }
  // As QEMU does, to the next command, which must be this one.
  void answer(kj::StringPtr command, kj::StringPtr result, kj::StringPtr after = ""_kj) {
    auto got = line();
    KJ_ASSERT(got.startsWith(kj::str("{\"execute\":\"", command, "\"")), got, command);
    send(kj::str("{\"return\": ", result, ", \"id\": ", idIn(got), "}\r\n", after));
  }
  void refuse(kj::StringPtr description) {
    auto got = line();
    send(kj::str("{\"id\": ", idIn(got), ", \"error\": {\"class\": \"GenericError\", \"desc\": \"", description,
                 "\"}}\r\n"));
  }
  void open(kj::StringPtr status = "running"_kj) {
    greet();
    answer("qmp_capabilities", "{}");
    answer("query-status", statusOf(status));
  }
  static kj::String statusOf(kj::StringPtr status) {
    return kj::str("{\"status\": \"", status, "\", \"singlestep\": false, \"running\": ", status == "running", "}");
  }
  static kj::String event(kj::StringPtr name, kj::StringPtr data = "{}"_kj) {
    return kj::str("{\"timestamp\": {\"seconds\": 1, \"microseconds\": 2}, \"event\": \"", name, "\", \"data\": ", data,
                   "}\r\n");
  }
  static kj::String idIn(kj::StringPtr command) {
    auto from = KJ_ASSERT_NONNULL(command.findLast(':'), command) + 1;
    return kj::heapString(command.slice(from, KJ_ASSERT_NONNULL(command.findLast('}'), command)));
  }

 private:
  kj::Own<kj::AsyncIoStream> stream;
  kj::WaitScope& waitScope;
};

struct QmpLab {
  kj::AsyncIoContext io = kj::setupAsyncIo();
  TemporaryFolder folder;
  kj::String path = folder.path("qmp");
  TestRandom random;
  QmpRecorder told;

  kj::Own<kj::ConnectionReceiver> listen() {
    ::unlink(path.cStr());
    return io.provider->getNetwork().parseAddress(kj::str("unix:", path)).wait(io.waitScope)->listen();
  }
  FakeQemu accept(kj::ConnectionReceiver& receiver) {
    return FakeQemu(receiver.accept().wait(io.waitScope), io.waitScope);
  }
  kj::Own<host::QmpWatch> watch() { return host::newQmpWatch(io.unixEventPort, path, random, told); }

  // Lets the loop run until it is so; false after `atMost`. What is waited for here is an order of things, not a speed:
  // under a loaded machine's load a QEMU takes half a minute to its first socket.
  template <typename Condition>
  bool until(Condition&& condition, kj::Duration atMost = 3 * kj::MINUTES) {
    auto& timer = io.provider->getTimer();
    for (auto deadline = timer.now() + atMost; timer.now() < deadline;) {
      if (condition()) return true;
      timer.afterDelay(2 * kj::MILLISECONDS).wait(io.waitScope);
    }
    return condition();
  }
  void pass(kj::Duration time) { io.provider->getTimer().afterDelay(time).wait(io.waitScope); }
  bool hasTold(size_t lines) {
    return until([&] { return told.told.size() >= lines; });
  }
};

}  // namespace postern::test
