// host-end SOCKET
//
// A SmallHost at a Unix socket, driven by lines on standard input and told about by lines on standard output:
//
//   offer [GRANTS-FILE]   prints "bundle TEXT" for a new offer; the VM stays the same
//   refuse | accept       from now on no session is taken, or every one again
//   drop | close CODE     ends the live session: as if killed, or with a CLOSE of that number
//   interval MS           what the answers to heartbeats want
//   mute | answer         heartbeats get no answer, or one again
//   ping [USER]           calls GuestCalls.ping for that user: "ping ok" or "ping denied RULE"
//   put FOLDER NAME PATH  copies the file or tree NAME in FOLDER to PATH in the guest, for alice, with --verify
//   get PATH FOLDER       the other way: "copied FILES files, FAILURES failures", or "copy failed: WHY"
//   connect SERVICE [USER] says "hello" to it and tells what it says until its end: "channel SERVICE: TEXT, finished"
//   hold SERVICE COUNT    opens so many channels that stay: "held COUNT"; each that ends tells "channel ended"
//   serve | deny          what the guest's consumers reach is an echo; or nothing
//   quit
//
// Events: "session N", "session over: WHY", "enrolled", "refused", "heartbeat N", "goodbye WHY", "not established:
// WHY".

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/debug.h>
#include <signal.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <fstream>
#include <sstream>

#include "protocol/limits.h"
#include "tests/support/host-channels.h"
#include "tests/support/host-copy.h"
#include "tests/support/small-host.h"
#include "transport/endpoint.h"
#include "transport/listener.h"
#include "transport/random.h"

namespace postern::test {
namespace {

void say(kj::StringPtr line) {
  printf("%s\n", line.cStr());
  fflush(stdout);
}

class HostEnd final : private kj::TaskSet::ErrorHandler {
 public:
  HostEnd(kj::UnixEventPort& port, Listener& listener, kj::AsyncInputStream& commands)
      : port(port), listener(listener), commands(commands), host(port.getTimer(), random), tasks(*this) {
    host.onEvent = [](kj::StringPtr text) { say(text); };
    tasks.add(acceptAll());
  }

  kj::Promise<void> run() {
    return commands.tryRead(buffer, 1, sizeof(buffer)).then([this](size_t n) -> kj::Promise<void> {
      if (n == 0) return kj::READY_NOW;
      for (char c : kj::arrayPtr(buffer, n)) {
        if (c != '\n') {
          line += c;
          continue;
        }
        if (line == "quit") return kj::READY_NOW;
        obey();
        line.clear();
      }
      return run();
    });
  }

 private:
  kj::UnixEventPort& port;
  Listener& listener;
  kj::AsyncInputStream& commands;
  SystemRandom random;
  SmallHost host;
  kj::Vector<kj::Own<unsigned>> holding;
  kj::TaskSet tasks;
  char buffer[512];
  std::string line;

  kj::Promise<void> acceptAll() {
    return listener.accept().then([this](Connection connection) {
      host.serve(newPipe(port, kj::mv(connection)));
      return acceptAll();
    });
  }

  void obey() {
    std::istringstream in(line);
    std::string verb, argument;
    in >> verb >> argument;
    if (verb == "offer") {
      auto bundle = host.offer();
      if (!argument.empty()) {
        std::ifstream file(argument);
        std::stringstream text;
        text << file.rdbuf();
        bundle->grants = kj::heapString(text.str().c_str());
      }
      say(kj::str("bundle ", encodeBundle(*bundle).get()));
    } else if (verb == "refuse" || verb == "accept") {
      host.refuses = verb == "refuse";
    } else if (verb == "mute" || verb == "answer") {
      host.answersHeartbeats = verb == "answer";
    } else if (verb == "drop") {
      host.drop();
    } else if (verb == "close") {
      host.drop(static_cast<CloseCode>(atoi(argument.c_str())));
    } else if (verb == "interval") {
      host.interval = static_cast<uint32_t>(atoi(argument.c_str()));
    } else if (verb == "ping") {
      ping(kj::heapString(argument.empty() ? "alice" : argument.c_str()));
    } else if (verb == "put" || verb == "get") {
      std::string second, third;
      in >> second >> third;
      copy(verb == "put", argument, second, third);
    } else if (verb == "connect") {
      std::string user;
      in >> user;
      connect(kj::heapString(argument.c_str()), kj::heapString(user.empty() ? "alice" : user.c_str()));
    } else if (verb == "hold") {
      unsigned count = 0;
      in >> count;
      hold(kj::heapString(argument.c_str()), count);
    } else if (verb == "serve") {
      host.onChannel = kj::Function<void(kj::Own<BulkChannel>)>(
          [this](kj::Own<BulkChannel> channel) { tasks.add(echo(kj::mv(channel))); });
    } else if (verb == "deny") {
      host.onChannel = nullptr;
    } else {
      say("what?");
    }
    bool tellsItself =
        verb == "offer" || verb == "ping" || verb == "put" || verb == "get" || verb == "connect" || verb == "hold";
    if (!tellsItself) say(kj::str("did ", verb.c_str()));
  }

  void ping(kj::String user) {
    if (!host.isConnected()) return say("ping: not connected");
    auto request = host.guest().callsForRequest();
    auto caller = request.initCaller().initUser();
    caller.setName(user);
    caller.setUid(1000);
    tasks.add(request.send().getCalls().pingRequest().send().then(
        [](capnp::Response<schema::GuestCalls::PingResults> answer) {
          if (answer.hasRefusal()) {
            say(kj::str("ping denied ", answer.getRefusal().getDetail()));
          } else {
            say("ping ok");
          }
        }));
  }

  schema::GuestCalls::Client callsFor(kj::StringPtr user) {
    auto request = host.guest().callsForRequest();
    request.initCaller().initUser().setName(user);
    return request.send().getCalls();
  }

  void connect(kj::String service, kj::String user) {
    if (!host.isConnected()) return say("channel: not connected");
    auto calls = callsFor(user);
    auto reaching = reach(host.session(), calls, service);
    tasks.add(reaching.attach(kj::cp(calls)).then([service = kj::mv(service), calls](Reached reached) mutable {
      KJ_IF_MAYBE (own, reached.channel) {
        auto& channel = **own;
        auto talk = channel.write(kj::StringPtr("hello\n").asBytes()).then([&channel](bool) {
          channel.finish();
          return hear(channel, size_t(1) << 20);
        });
        return talk.attach(kj::mv(*own), kj::mv(calls)).then([service = kj::mv(service)](Heard heard) {
          for (char& c : heard.text) c = c == '\n' ? ' ' : c;
          bool finished = KJ_ASSERT_NONNULL(heard.end) == BulkEnd::FINISHED;
          say(kj::str("channel ", service, ": ", heard.text, finished ? ", finished" : ", reset"));
        });
      }
      say(kj::str("channel ", service, ": refused, ", reached.refusal));
      return kj::Promise<void>(kj::READY_NOW);
    }));
  }

  void hold(kj::String service, unsigned count) {
    if (!host.isConnected()) return say("channel: not connected");
    auto calls = callsFor("alice");
    auto left = kj::heap<unsigned>(count);
    auto& counter = *left;
    holding.add(kj::mv(left));
    for (unsigned i = 0; i < count; ++i) {
      tasks.add(reach(host.session(), calls, service).then([&counter, count, calls](Reached reached) mutable {
        KJ_IF_MAYBE (own, reached.channel) {
          if (--counter == 0) say(kj::str("held ", count));
          auto hearing = hear(**own, size_t(1) << 20);
          return hearing.attach(kj::mv(*own), kj::mv(calls)).then([](Heard) { say("channel ended"); });
        }
        say(kj::str("channel: refused, ", reached.refusal));
        return kj::Promise<void>(kj::READY_NOW);
      }));
    }
  }

  void copy(bool puts, const std::string& first, const std::string& second, const std::string& third) {
    if (!host.isConnected()) return say("copy failed: not connected");
    auto copied = puts ? putFile(port, host.session(), host.guest(), first.c_str(), second.c_str(), third.c_str())
                       : getFile(port, host.session(), host.guest(), first.c_str(), second.c_str());
    tasks.add(copied.then([](kj::String outcome) { say(outcome); }));
  }

  void taskFailed(kj::Exception&& exception) override { say(kj::str("failed: ", exception.getDescription())); }
};

int run(const char* socket) {
  signal(SIGPIPE, SIG_IGN);
  auto io = kj::setupAsyncIo();
  io.waitScope.setBusyPollInterval(limits::BUSY_POLL_INTERVAL);
  auto endpoint = parseEndpoint(kj::str("unix:", socket));
  KJ_REQUIRE(endpoint.is<Endpoint>());
  auto listening = listenOn(io.unixEventPort, io.unixEventPort.getTimer(), endpoint.get<Endpoint>());
  KJ_REQUIRE(listening.is<kj::Own<Listener>>(), listening.get<TransportError>().text);
  auto commands = io.lowLevelProvider->wrapInputFd(STDIN_FILENO);
  HostEnd end(io.unixEventPort, *listening.get<kj::Own<Listener>>(), *commands);
  say("listening");
  end.run().wait(io.waitScope);
  return 0;
}

}  // namespace
}  // namespace postern::test

int main(int argc, char** argv) {
  if (argc != 2 || sodium_init() < 0) return 2;
  return postern::test::run(argv[1]);
}
