// hostile-caller SOCKET CONNECTIONS MS
//
// A program of the host without rights that calls posternd as much as it can: on so many connections, each with many
// calls in progress, of every kind, with names of a megabyte and without waiting for answers. A connection that is
// closed is made anew. Prints "called N answered M refused K connections C" at the end.

#include <kj/async-io.h>
#include <kj/debug.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "host/client/control-client.h"

namespace postern::test {
namespace {

namespace schema = host::schema;

constexpr unsigned OUTSTANDING = 200;

class Sink final : public schema::EventSink::Server {
  kj::Promise<void> event(EventContext) override { return kj::NEVER_DONE; }
};

class HostileCaller final : private kj::TaskSet::ErrorHandler {
 public:
  HostileCaller(kj::AsyncIoContext& io, const char* socket)
      : io(io), timer(io.provider->getTimer()), socket(kj::str(socket)), giant(kj::heapString(size_t(200) << 10)) {
    for (auto& c : giant) c = '\033';
    kj::TaskSet::ErrorHandler& handler = *this;
    tasks = kj::heap<kj::TaskSet>(handler);
  }
  ~HostileCaller() noexcept(false) { tasks = nullptr; }

  void run(unsigned connections, kj::Duration during) {
    end = timer.now() + during;
    for (unsigned i = 0; i < connections; ++i) tasks->add(stay());
    timer.atTime(end).wait(io.waitScope);
    printf("called %llu answered %llu failed %llu connections %llu\n", called, answered, failed, made);
  }

 private:
  kj::AsyncIoContext& io;
  kj::Timer& timer;
  const kj::String socket;
  kj::String giant;
  kj::TimePoint end = kj::origin<kj::TimePoint>();
  kj::Own<kj::TaskSet> tasks;
  unsigned long long called = 0, answered = 0, failed = 0, made = 0;

  kj::Promise<void> stay() {
    return client::ControlClient::connect(*io.lowLevelProvider, timer, socket)
        .then([this](client::Outcome<kj::Own<client::ControlClient>> outcome) -> kj::Promise<void> {
          if (!outcome.is<kj::Own<client::ControlClient>>()) return kj::READY_NOW;
          ++made;
          auto connection = kj::mv(outcome.get<kj::Own<client::ControlClient>>());
          kj::Vector<kj::Promise<void>> calls;
          auto control = connection->control();
          for (unsigned i = 0; i < OUTSTANDING; ++i) calls.add(callForEver(control, i));
          return kj::joinPromises(calls.releaseAsArray()).attach(kj::mv(connection));
        })
        .catch_([this](kj::Exception&&) { ++failed; })
        .then([this]() { return timer.afterDelay(20 * kj::MILLISECONDS); })
        .then([this]() { return stay(); });
  }

  kj::Promise<void> callForEver(schema::Control::Client control, unsigned turn) {
    ++called;
    return call(control, turn).then([this, control, turn]() mutable {
      ++answered;
      return callForEver(control, turn + 1);
    });
  }

  kj::Promise<void> call(schema::Control::Client control, unsigned turn) {
    kj::StringPtr name = turn % 50 == 0 ? kj::StringPtr(giant) : "web1"_kj;
    switch (turn % 8) {
      case 0: {
        auto request = control.openRequest();
        request.setVm(name);
        request.initCalls(1).set(0, "ping");
        return request.send().ignoreResult();
      }
      case 1:
        return control.listVmsRequest().send().ignoreResult();
      case 2:
        return control.statusRequest().send().ignoreResult();
      case 3: {
        auto request = control.removeVmRequest();
        request.setName(name);
        return request.send().ignoreResult();
      }
      case 4: {
        auto request = control.explainPolicyRequest();
        auto query = request.initQuery();
        query.setTo(name);
        query.setCall(name);
        return request.send().ignoreResult();
      }
      case 5: {
        auto request = control.addVmRequest();
        auto vm = request.initVm();
        vm.setName(name);
        vm.setTransport(name);
        return request.send().ignoreResult();
      }
      case 6: {
        auto request = control.eventsRequest();
        request.setFollow(turn % 16 == 6);
        request.setBacklog(~uint32_t(0));
        request.setSink(kj::heap<Sink>());
        // Its answer may be long in coming: not waited for.
        tasks->add(request.send().ignoreResult().catch_([](kj::Exception&&) {}));
        return control.daemonInfoRequest().send().ignoreResult();
      }
      default: {
        auto request = control.openRequest();
        request.setVm(name);
        auto calls = request.initCalls(1000);
        for (unsigned i = 0; i < calls.size(); ++i) calls.set(i, "power.shutdown");
        return request.send().ignoreResult();
      }
    }
  }

  void taskFailed(kj::Exception&&) override { ++failed; }
};

}  // namespace
}  // namespace postern::test

int main(int argc, char** argv) {
  if (argc != 4) return 2;
  signal(SIGPIPE, SIG_IGN);
  auto io = kj::setupAsyncIo();
  postern::test::HostileCaller caller(io, argv[1]);
  caller.run(static_cast<unsigned>(atoi(argv[2])), atoi(argv[3]) * kj::MILLISECONDS);
  return 0;
}
