#include "guest-agent/broker/broker-service.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <spdlog/spdlog.h>
#include <sys/socket.h>

#include <algorithm>

#include "guest-agent/bounded-text.h"
#include "guest-agent/info/probe.h"
#include "guest-agent/log/log.h"
#include "guest-agent/power/hooks.h"

namespace postern::guest {

namespace {

kj::Array<kj::byte> payloadOf(kj::StringPtr text) {
  return kj::heapArray(boundedText(text, MAX_TEXT_BYTES).asBytes());
}

// "file.put /srv/www for user:alice"
kj::String describe(const OpenFilesRequest& request) {
  return kj::str(transfer::callName(request.order.call), ' ', boundedText(request.order.path, MAX_TEXT_BYTES), " for ",
                 request.caller);
}

}  // namespace

Broker::Service::Service(Broker& broker, kj::AutoCloseFd fd)
    : broker(broker),
      socket(kj::mv(fd), broker.port, MAX_REQUEST_BYTES, 0),
      services(broker.port, broker.programs, broker.options.planService),
      tasks(*this) {
  broker.services.insert(this);
}

Broker::Service::~Service() noexcept(false) {
  broker.services.erase(this);
}

void Broker::Service::configurationChanged() {
  openers.planAgain(broker.options.planFiles);
  services.planAgain();
}

kj::Promise<Broker::Service::End> Broker::Service::serve() {
  return socket.receive().then([this](kj::OneOf<Packet, PacketsEnded, PacketTooMuch> received) -> kj::Promise<End> {
    if (received.is<PacketsEnded>()) return End(AgentGone{});
    if (received.is<PacketTooMuch>()) {
      return End(AgentBrokeRule{kj::str("a message is too long, or carries descriptors")});
    }
    KJ_IF_MAYBE (broken, take(received.get<Packet>().bytes)) return End(kj::mv(*broken));
    return serve();
  });
}

kj::Maybe<AgentBrokeRule> Broker::Service::take(kj::ArrayPtr<const kj::byte> untrusted) {
  auto parsed = parseRequest(untrusted);
  KJ_IF_MAYBE (error, parsed.tryGet<WireError>()) return AgentBrokeRule{kj::str(error->rule)};
  auto& request = parsed.get<Request>();
  if (request.number <= lastNumber) return AgentBrokeRule{kj::str("a request's number was used before")};
  lastNumber = request.number;
  KJ_IF_MAYBE (cancelled, request.what.tryGet<CancelRequest>()) {
    cancel(cancelled->of);
    return nullptr;
  }
  bool isService = request.what.is<OpenServiceRequest>();
  size_t most = isService ? MAX_SERVICE_REQUESTS : MAX_BROKER_REQUESTS;
  if (inProgress(isService ? Lane::SERVICES : Lane::OTHERS) >= most) {
    return AgentBrokeRule{kj::str("more than ", most, " requests at one time")};
  }
  begin(kj::mv(request));
  return nullptr;
}

// Unsent answers count: who does not read them gets no more done.
size_t Broker::Service::inProgress(Lane lane) {
  while (unread.size() > socket.unsent()) unread.pop_front();
  return lanes[size_t(lane)] + size_t(std::count(unread.begin(), unread.end(), lane));
}

void Broker::Service::begin(Request request) {
  uint64_t number = request.number;
  auto whenCancelled = kj::newPromiseAndFulfiller<void>();
  auto lane = request.what.is<OpenServiceRequest>() ? Lane::SERVICES : Lane::OTHERS;
  running.emplace(number, Running{lane, kj::mv(whenCancelled.fulfiller)});
  ++lanes[size_t(lane)];
  auto owned = kj::heap(kj::mv(request));
  auto work = kj::evalNow([&] { return carryOut(*owned); });
  tasks.add(work.exclusiveJoin(whenCancelled.promise.then([] { return Reply{Answer::Outcome::CANCELLED}; }))
                .attach(kj::mv(owned))
                .catch_([number](kj::Exception&& exception) {
                  spdlog::error("request-failed number={}: {}", number, kj::str(exception).cStr());
                  return Reply{Answer::Outcome::REFUSED, payloadOf("the broker failed; its log says why")};
                })
                .then([this, number](Reply reply) { answer(number, kj::mv(reply)); }));
}

void Broker::Service::answer(uint64_t number, Reply reply) {
  auto lane = running.at(number).lane;
  running.erase(number);
  --lanes[size_t(lane)];
  Answer answer{number, reply.outcome, reply.flag, {}, kj::mv(reply.payload)};
  Packet packet;
  KJ_IF_MAYBE (connection, reply.connection) {
    answer.connection = describe(*connection);
    packet.fds.add(connection->fd.release());
  }
  KJ_IF_MAYBE (opened, reply.socket) packet.fds.add(kj::mv(*opened));
  packet.bytes = answerBytes(answer);
  socket.send(kj::mv(packet));
  unread.push_back(lane);
}

void Broker::Service::cancel(uint64_t number) {
  auto found = running.find(number);
  if (found != running.end()) found->second.cancel->fulfill();
  openers.cancel(number);
  services.cancel(number);
}

kj::Promise<Broker::Service::Reply> Broker::Service::carryOut(Request& request) {
  using enum Answer::Outcome;
  auto texts = [](kj::Array<kj::String> list) { return Reply{DONE, textsPayload(list)}; };
  KJ_SWITCH_ONEOF(request.what) {
    KJ_CASE_ONEOF(connectRequest, ConnectRequest) {
      return connect();
    }
    KJ_CASE_ONEOF(probeRequest, ProbeRequest) {
      return probe(probeRequest);
    }
    KJ_CASE_ONEOF(inhibitors, InhibitorsRequest) {
      return broker.options.power->inhibitors(inhibitors.action, broker.children).then(texts);
    }
    KJ_CASE_ONEOF(hooks, HooksRequest) {
      return texts(listHooks(broker.options.hooksFolder));
    }
    KJ_CASE_ONEOF(hook, RunHookRequest) {
      return runHook(hook);
    }
    KJ_CASE_ONEOF(tell, TellUsersRequest) {
      return tellUsers(tell);
    }
    KJ_CASE_ONEOF(powerRequest, PowerRequest) {
      return power(powerRequest);
    }
    KJ_CASE_ONEOF(enrolled, EnrolledRequest) {
      return broker.options.enrolled().then([](bool adopted) { return Reply{DONE, nullptr, adopted}; });
    }
    KJ_CASE_ONEOF(files, OpenFilesRequest) {
      return openFiles(request.number, files);
    }
    KJ_CASE_ONEOF(service, OpenServiceRequest) {
      return openService(request.number, service);
    }
    KJ_CASE_ONEOF(cancelled, CancelRequest) {
      KJ_UNREACHABLE;
    }
  }
  KJ_UNREACHABLE;
}

kj::Promise<Broker::Service::Reply> Broker::Service::connect() {
  if (connects >= MAX_CONNECTS) return Reply{Answer::Outcome::REFUSED, payloadOf("another connect is under way")};
  ++connects;
  return broker.options.connect().attach(kj::defer([this] { --connects; })).then([](Connected connected) {
    KJ_IF_MAYBE (error, connected.tryGet<TransportError>()) {
      return Reply{Answer::Outcome::REFUSED, payloadOf(error->text)};
    }
    return Reply{Answer::Outcome::CONNECTED, nullptr, false, kj::mv(connected.get<Connection>())};
  });
}

kj::Promise<Broker::Service::Reply> Broker::Service::probe(const ProbeRequest& request) {
  using enum Answer::Outcome;
  auto limit = kj::min(request.deadline, kj::Duration(MAX_PROBE_TIME));
  return broker.children
      .run(probeChild(broker.options.probeCommand, probeName(request.which), broker.options.probeIdentity, limit))
      .then([](ChildEnd end) {
        KJ_SWITCH_ONEOF(end) {
          KJ_CASE_ONEOF(exited, ChildExited) {
            if (exited.status == 0) return Reply{DONE, kj::mv(exited.output)};
            return Reply{REFUSED, payloadOf(kj::str("the probe failed with status ", exited.status))};
          }
          KJ_CASE_ONEOF(killed, ChildKilled) {
            return Reply{REFUSED, payloadOf(kj::str("the probe was killed by signal ", killed.signal))};
          }
          KJ_CASE_ONEOF(timedOut, ChildTimedOut) {
            return Reply{TIMED_OUT};
          }
          KJ_CASE_ONEOF(not_, ChildNotStarted) {
            return Reply{REFUSED, payloadOf(not_.text)};
          }
        }
        KJ_UNREACHABLE;
      });
}

kj::Promise<Broker::Service::Reply> Broker::Service::runHook(const RunHookRequest& request) {
  KJ_IF_MAYBE (why, broker.options.refuse(callName(request.action), request.caller)) {
    return Reply{Answer::Outcome::REFUSED, payloadOf(*why)};
  }
  HookRun run{broker.options.hooksFolder, request.name, request.action, request.caller, broker.options.hookTime};
  return guest::runHook(broker.children, run).then([](kj::Maybe<kj::String> veto) {
    KJ_IF_MAYBE (why, veto) return Reply{Answer::Outcome::REFUSED, payloadOf(*why)};
    return Reply{Answer::Outcome::DONE};
  });
}

kj::Promise<Broker::Service::Reply> Broker::Service::tellUsers(const TellUsersRequest& request) {
  auto now = broker.port.getTimer().now();
  while (!tells.empty() && now - tells.front() > 1 * kj::MINUTES) tells.pop_front();
  if (tells.size() >= TELLS_PER_MINUTE) return Reply{Answer::Outcome::REFUSED, payloadOf("too many messages")};
  tells.push_back(now);
  if (broker.options.tellCommand.size() == 0) return Reply{Answer::Outcome::DONE};
  auto argv = KJ_MAP(part, broker.options.tellCommand) {
    return kj::str(part);
  };
  ChildDescription wall{kj::mv(argv), kj::arr(kj::str(CHILD_PATH)), nullptr, kj::str(request.message, '\n'),
                        5 * kj::SECONDS};
  return broker.children.run(kj::mv(wall)).then([](ChildEnd) { return Reply{Answer::Outcome::DONE}; });
}

kj::Promise<Broker::Service::Reply> Broker::Service::power(const PowerRequest& request) {
  return broker.power(request.action, request.caller).then([](kj::Maybe<kj::String> failure) {
    KJ_IF_MAYBE (why, failure) return Reply{Answer::Outcome::REFUSED, payloadOf(*why)};
    return Reply{Answer::Outcome::DONE};
  });
}

kj::Promise<Broker::Service::Reply> Broker::Service::openService(uint64_t number, const OpenServiceRequest& request) {
  return services.open(number, request).then([](ServiceOpener::Result result) {
    KJ_IF_MAYBE (refusal, result.tryGet<ServiceRefusal>()) {
      return Reply{Answer::Outcome::REFUSED, serviceRefusalPayload(*refusal)};
    }
    auto& opened = result.get<ServiceOpener::Opened>();
    return Reply{Answer::Outcome::OPENED, nullptr, opened.isProgram, nullptr, opened.socket.release()};
  });
}

// T71
kj::Promise<Broker::Service::Reply> Broker::Service::openFiles(uint64_t number, const OpenFilesRequest& request) {
  using Kind = FilesRefusal::Kind;
  if (openers.count() >= MAX_OPENERS) {
    return refuseFiles(request, {Kind::BUSY, kj::str("as many files are being copied as may be"), nullptr});
  }
  auto planned = broker.options.planFiles(request.order, request.caller);
  KJ_IF_MAYBE (refusal, planned.tryGet<FilesRefusal>()) return refuseFiles(request, *refusal);
  auto& plan = planned.get<OpenerPlan>();
  int fds[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds));
  kj::AutoCloseFd agentEnd(fds[0]), openerEnd(fds[1]);
  int copy;
  KJ_SYSCALL(copy = fcntl(openerEnd, F_DUPFD_CLOEXEC, 0));
  kj::AutoCloseFd keptEnd(copy);
  auto starting =
      broker.openers.start(openerChild(broker.options.openerCommand, request.order, plan, kj::mv(openerEnd)));
  watchOpener(number, request, plan, kj::mv(keptEnd), kj::mv(starting.end));
  auto line =
      kj::str(describe(request), ", as ", plan.user.name, " below ", boundedText(plan.place.root, MAX_TEXT_BYTES));
  return starting.started.then(
      [this, &request, line = kj::mv(line), agentEnd = kj::mv(agentEnd)](StartOutcome failure) mutable -> Reply {
        KJ_IF_MAYBE (why, failure) return refuseFiles(request, {Kind::FAILED, kj::mv(why->text), nullptr});
        logInfo("files-opened", line);
        return {Answer::Outcome::OPENED, nullptr, false, nullptr, kj::mv(agentEnd)};
      });
}

Broker::Service::Reply Broker::Service::refuseFiles(const OpenFilesRequest& request, const FilesRefusal& refusal) {
  logWarning("files-refused", kj::str(describe(request), ": ", refusal.text));
  return {Answer::Outcome::REFUSED, filesRefusalPayload(refusal)};
}

// T75
// Until it ends, or is cancelled; then Children gives it its grace.
void Broker::Service::watchOpener(uint64_t number, const OpenFilesRequest& request, const OpenerPlan& plan,
                                  kj::AutoCloseFd openerEnd, kj::Promise<ChildEnd> end) {
  auto cancelled = kj::newPromiseAndFulfiller<void>();
  openers.add(number, request.order, request.caller, plan, kj::mv(openerEnd), kj::mv(cancelled.fulfiller));
  auto told = end.then([](ChildEnd how) {
    KJ_IF_MAYBE (killed, how.tryGet<ChildKilled>()) {
      logError("opener-killed", kj::str("a process that opens files was ended by signal ", killed->signal));
    }
    KJ_IF_MAYBE (exited, how.tryGet<ChildExited>()) {
      if (exited->status != 0) {
        logWarning("opener-failed", kj::str("a process that opens files ended with status ", exited->status));
      }
    }
  });
  tasks.add(told.exclusiveJoin(kj::mv(cancelled.promise)).then([this, number] { openers.remove(number); }));
}

void Broker::Service::taskFailed(kj::Exception&& exception) {
  spdlog::error("request-failed: {}", kj::str(exception).cStr());
}

}  // namespace postern::guest
