#pragma once
// A broker and its agent's end on one loop, with real sockets and real child processes, a folder of the test's own, and
// a PowerWay and a policy that the test turns.

#include <doctest/doctest.h>
#include <fcntl.h>
#include <kj/async-unix.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <kj/vector.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "guest-agent/broker/broker.h"
#include "tests/support/temporary-folder.h"

namespace postern::guest::test {

inline kj::Array<kj::String> shell(kj::StringPtr script) {
  return kj::arr(kj::str("/bin/sh"), kj::str("-c"), kj::str(script));
}

inline void writeFile(kj::StringPtr path, kj::StringPtr text, mode_t mode) {
  kj::AutoCloseFd fd(open(path.cStr(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600));
  kj::FdOutputStream(fd.get()).write(text.begin(), text.size());
  KJ_SYSCALL(fchmod(fd, mode));
}

inline bool exists(kj::StringPtr path) {
  return access(path.cStr(), F_OK) == 0;
}

// Records what is asked of it.
struct PowerLog {
  kj::Vector<kj::String> started;
  kj::Vector<kj::String> inhibitors;
  kj::Maybe<kj::String> failure;
  kj::Maybe<kj::Promise<void>> hold;  // start() waits for it
};

class LoggedPower final : public PowerWay {
 public:
  explicit LoggedPower(PowerLog& log) : log(log) {}
  kj::Promise<kj::Array<kj::String>> inhibitors(PowerAction, Children&) override {
    return KJ_MAP(one, log.inhibitors) {
      return kj::str(one);
    };
  }
  kj::Promise<kj::Maybe<kj::String>> start(PowerAction action, Children&) override {
    log.started.add(kj::str(actionName(action)));
    kj::Promise<void> wait = kj::READY_NOW;
    KJ_IF_MAYBE (hold, log.hold) {
      wait = kj::mv(*hold);
      log.hold = nullptr;
    }
    return wait.then([this] { return log.failure.map([](kj::String& text) { return kj::str(text); }); });
  }

 private:
  PowerLog& log;
};

struct BrokerLab {
  postern::test::TemporaryFolder folder;
  kj::UnixEventPort port;
  kj::EventLoop loop{port};
  kj::WaitScope scope{loop};
  PowerLog power;
  kj::Maybe<kj::String> policyRefuses;
  unsigned enrolledCalls = 0;
  kj::Function<kj::Promise<Connected>()> connect = [] {
    return kj::Promise<Connected>(TransportError{kj::str("nothing to connect to")});
  };
  // A test that opens files says what an opener is; else every order is refused.
  kj::Array<kj::String> openerCommand = shell("exec sleep 60");
  kj::Function<kj::OneOf<OpenerPlan, FilesRefusal>(const transfer::FileOrder&, kj::StringPtr)> planFiles =
      [](const transfer::FileOrder& order, kj::StringPtr caller) {
        return FilesRefusal{FilesRefusal::Kind::DENIED,
                            kj::str("not allowed: ", transfer::callName(order.call), ' ', order.path, ' ', caller),
                            kj::str("no-files")};
      };
  PlanService planService = [](kj::StringPtr service, kj::StringPtr caller) {
    return ServiceRefusal{ServiceRefusal::Kind::DENIED, kj::str("not allowed: ", service, ' ', caller),
                          kj::str("no-services")};
  };
  kj::String hooks = folder.path("hooks.d");
  kj::Own<Broker> broker;
  kj::AutoCloseFd agentEnd;
  kj::Promise<kj::OneOf<AgentGone, AgentBrokeRule>> service = nullptr;

  explicit BrokerLab(kj::Array<kj::String> probeCommand = shell("exit 3"), kj::Duration hookTime = 5 * kj::SECONDS,
                     kj::Duration powerTime = POWER_HAPPENS_WITHIN, kj::Maybe<kj::Array<kj::String>> opener = nullptr) {
    KJ_IF_MAYBE (command, opener) openerCommand = kj::mv(*command);
    scope.setBusyPollInterval(32);
    KJ_SYSCALL(mkdir(hooks.cStr(), 0755));
    broker = kj::heap<Broker>(port, options(kj::mv(probeCommand), hookTime, powerTime));
    auto sockets = newBrokerSockets();
    agentEnd = kj::mv(sockets.agent);
    service = broker->serve(kj::mv(sockets.broker)).eagerlyEvaluate(nullptr);
  }

  kj::Own<BrokerClient> client() { return newBrokerClient(kj::mv(agentEnd), port); }

  void addHook(kj::StringPtr name, kj::StringPtr script, mode_t mode = 0755) {
    writeFile(kj::str(hooks, "/", name), kj::str("#!/bin/sh\n", script, "\n"), mode);
  }

  kj::Promise<void> after(kj::Duration time) { return port.getTimer().afterDelay(time); }
  // Waits, and fails the test rather than hanging it.
  template <typename T>
  T wait(kj::Promise<T> promise, kj::Duration limit = 20 * kj::SECONDS) {
    return port.getTimer().timeoutAfter(limit, kj::mv(promise)).wait(scope);
  }
  void turn(kj::Duration time = 20 * kj::MILLISECONDS) { after(time).wait(scope); }

 private:
  BrokerOptions options(kj::Array<kj::String> probeCommand, kj::Duration hookTime, kj::Duration powerTime) {
    BrokerOptions options;
    options.probeCommand = kj::mv(probeCommand);
    options.hooksFolder = kj::str(hooks);
    options.hookTime = hookTime;
    options.powerTime = powerTime;
    options.power = kj::heap<LoggedPower>(power);
    options.tellCommand = shell(kj::str("cat >> ", folder.path("told")));
    options.refuse = [this](kj::StringPtr call, kj::StringPtr caller) -> kj::Maybe<kj::String> {
      return policyRefuses.map([&](kj::String& text) { return kj::str(text, " ", call, " ", caller); });
    };
    options.openerCommand = KJ_MAP(part, openerCommand) {
      return kj::str(part);
    };
    options.planFiles = [this](const transfer::FileOrder& order, kj::StringPtr caller) {
      return planFiles(order, caller);
    };
    options.planService = [this](kj::StringPtr service, kj::StringPtr caller) { return planService(service, caller); };
    options.connect = [this] { return connect(); };
    options.enrolled = [this] {
      ++enrolledCalls;
      return kj::Promise<bool>(true);
    };
    return options;
  }
};

// One that ends within a second or so: its pid is in the file.
inline pid_t pidIn(kj::StringPtr path) {
  kj::AutoCloseFd fd(open(path.cStr(), O_RDONLY | O_CLOEXEC));
  KJ_REQUIRE(fd.get() >= 0, "no such file", path);
  char text[32]{};
  KJ_SYSCALL(read(fd, text, sizeof(text) - 1));
  return pid_t(atoi(text));
}

}  // namespace postern::guest::test
