#include "host/session/file-calls.h"

#include <kj/debug.h>
#include <sys/socket.h>

#include "host/control/failure.h"
#include "host/local-rpc/local-rpc.h"
#include "host/session/file-guard.h"
#include "host/session/guest-call.h"
#include "protocol/transfer/file-order.h"
#include "protocol/transfer/limits.h"

namespace postern::host {

namespace {

namespace wire = postern::schema;
using Kind = schema::Failure::Kind;
using transfer::FileCall;
using FileRequest = capnp::Request<wire::GuestCalls::FileParams, wire::GuestCalls::FileResults>;

schema::FileGrant::Reader grantOf(schema::Grant::Reader grant, kj::StringPtr call) {
  for (auto file : grant.getFiles()) {
    if (file.getCall() == call) return file;
  }
  return schema::FileGrant::Reader();  // without a rule: it allows nothing
}

kj::String boundedPath(capnp::Data::Reader untrusted) {
  return kj::heapString(untrusted.asChars().slice(0, kj::min(untrusted.size(), transfer::MAX_PATH_BYTES)));
}

int optionOf(int socket, int option) {
  int value = -1;
  socklen_t size = sizeof(value);
  return getsockopt(socket, SOL_SOCKET, option, &value, &size) == 0 ? value : -1;
}

// A SOCK_SEQPACKET socket of this machine that does not listen, and nothing else that a caller could pass.
bool isOpenerSocket(int fd) {
  return optionOf(fd, SO_DOMAIN) == AF_UNIX && optionOf(fd, SO_TYPE) == SOCK_SEQPACKET &&
         optionOf(fd, SO_ACCEPTCONN) == 0;
}

// One call, from its order to its outcome. Owned by its promise.
class Running {
 public:
  Running(const FileCallEnvironment& environment, FileCallContext context)
      : hub(environment.hub),
        limits(environment.limits),
        grant(environment.grant),
        sockets(environment.sockets),
        context(context),
        call(context.getParams().getOrder().getCall()),
        files(grantOf(grant, transfer::callName(call))),
        audit(environment.log, grant.getId(), transfer::callName(call),
              boundedPath(context.getParams().getOrder().getPath()),
              grant.getAuditEach() ? FileAudit::Lines::EACH : FileAudit::Lines::SUMMARY) {}
  ~Running() noexcept(false) { countSent(); }
  KJ_DISALLOW_COPY(Running);

  kj::Promise<void> run(kj::Maybe<wire::GuestCalls::Client> guest);

 private:
  Hub& hub;
  TransferLimits& limits;
  const schema::Grant::Reader grant;
  PassedSockets& sockets;
  FileCallContext context;
  const FileCall call;
  const schema::FileGrant::Reader files;
  FileAudit audit;
  transfer::FileOrder order;
  kj::Maybe<transfer::PathScope> scope;
  kj::Own<TransferLimits::Use> use;
  kj::Own<FileGuard> guard;
  StrangersFd opener;
  kj::Own<BulkChannel> channel;
  uint64_t session = 0;  // the number of the guest's session that the channel is of
  kj::Maybe<kj::Own<transfer::Mover>> mover;

  bool isAllowed();
  bool takePlace();
  bool openChannel(FileRequest& request);
  kj::Promise<void> ask(wire::GuestCalls::Client guest);
  kj::Promise<void> send(FileRequest request);
  kj::Promise<void> move();
  void moved(transfer::MoverEnd end);
  void tellOutcome();

  bool isSettled() { return context.getResults().hasFailure() || context.getResults().hasProblem(); }
  bool fail(Kind kind, kj::StringPtr text) {
    setFailure(context.getResults().initFailure(), kind, text);
    return false;
  }
  bool fail(const transfer::Problem& problem) {
    transfer::write(problem, context.getResults().initProblem());
    return false;
  }
  void countSent() {
    KJ_IF_MAYBE (m, mover) audit.sent((*m)->contentBytes());
  }
};

// T79
bool Running::isAllowed() {
  auto parsed = transfer::parseFileOrder(context.getParams().getOrder());
  KJ_IF_MAYBE (wrong, parsed.tryGet<kj::StringPtr>()) return fail(Kind::INVALID, *wrong);
  order = kj::mv(parsed.get<transfer::FileOrder>());
  if (order.path.asBytes() != grant.getPath()) return fail(Kind::INVALID, "this socket was opened for another path");
  auto read = transfer::PathScope::parse(files.getScope());
  KJ_IF_MAYBE (wrong, read.tryGet<kj::String>()) return fail(Kind::FAILED, kj::str("posternd's grant: ", *wrong));
  auto& inScope = scope.emplace(kj::mv(read.get<transfer::PathScope>()));
  KJ_IF_MAYBE (denial, findDenial(call, order.path, inScope)) {
    fail(Kind::DENIED, denial->text);
    auto failure = context.getResults().getFailure();
    failure.setLock(schema::Failure::Lock::HOST);
    failure.setRule(denial->rule);
    return false;
  }
  return true;
}

bool Running::takePlace() {
  auto begun = limits.begin(context.getParams().getOrder().getRate());
  KJ_IF_MAYBE (tooMany, begun.tryGet<kj::String>()) {
    return fail(transfer::problem(transfer::ProblemKind::BUSY, kj::mv(*tooMany)));
  }
  use = kj::mv(begun.get<kj::Own<TransferLimits::Use>>());
  auto verdict = KJ_ASSERT_NONNULL(scope).decide(order.path);
  KJ_IF_MAYBE (tooMany, use->enter(verdict.rule)) {
    return fail(transfer::problem(transfer::ProblemKind::BUSY, kj::mv(*tooMany)));
  }
  return true;
}

bool Running::openChannel(FileRequest& request) {
  KJ_IF_MAYBE (end, hub.connected()) {
    session = hub.sessionsMade();
    KJ_IF_MAYBE (opened, end->session().bulk().open()) {
      channel = kj::mv(opened->channel);
      request.setChannel(opened->offer.channel);
      request.setCredit(opened->offer.credit);
      return true;
    }
    return fail(transfer::problem(transfer::ProblemKind::BUSY, kj::str("the link to the guest has no channel left")));
  }
  return fail(Kind::NOT_CONNECTED, "the link to the guest has just ended");
}

kj::Promise<void> Running::run(kj::Maybe<wire::GuestCalls::Client> guest) {
  bool allowed = isAllowed();
  KJ_IF_MAYBE (connected, guest) {
    if (allowed) return ask(*connected).then([this]() { tellOutcome(); });
  }
  tellOutcome();
  return kj::READY_NOW;
}

kj::Promise<void> Running::ask(wire::GuestCalls::Client guest) {
  auto request = guest.fileRequest();
  auto toGuest = request.initOrder();
  transfer::write(order, toGuest);
  toGuest.setSpecial(KJ_ASSERT_NONNULL(scope).special);
  if (!transfer::hasChannel(call)) return send(kj::mv(request));
  if (!takePlace()) return kj::READY_NOW;
  if (!context.getParams().hasOpener()) {
    fail(Kind::INVALID, "a copy needs the socket of its opener");
    return kj::READY_NOW;
  }
  return sockets.take(context.getParams().getOpener())
      .then([this, request = kj::mv(request)](StrangersFd socket) mutable -> kj::Promise<void> {
        opener = kj::mv(socket);
        if (!isOpenerSocket(opener)) {
          fail(Kind::INVALID, "the opener is not a SOCK_SEQPACKET socket");
          return kj::READY_NOW;
        }
        if (!openChannel(request)) return kj::READY_NOW;
        return send(kj::mv(request)).then([this]() { return isSettled() ? kj::Promise<void>(kj::READY_NOW) : move(); });
      });
}

// What the guest answers. Of a copy it is the beginning.
kj::Promise<void> Running::send(FileRequest request) {
  auto answered = request.send().then([this](auto answer) {
    if (answer.hasRefusal()) {
      setFailure(context.getResults().initFailure(), answer.getRefusal());
    } else if (answer.hasProblem()) {
      fail(transfer::parseProblem(answer.getProblem()));
    }
  });
  return boundedCall(hub.timer(), kj::mv(answered),
                     transfer::hasChannel(call) ? FILE_CALL_DEADLINE : FILE_CHANGE_DEADLINE,
                     [this]() { return context.getResults().initFailure(); });
}

kj::Promise<void> Running::move() {
  guard = kj::heap<FileGuard>(call, order.path, KJ_ASSERT_NONNULL(scope), *use, audit);
  transfer::MoverOptions options;
  options.listing = call == FileCall::LIST || call == FileCall::STAT;
  options.verify = order.verify;
  options.sparse = order.sparse;
  auto& running = *mover.emplace(
      call == FileCall::PUT
          ? transfer::newSourceMover(hub.port(), opener.release(), kj::mv(channel), options, *guard)
          : transfer::newDestinationMover(hub.port(), opener.release(), kj::mv(channel), options, *guard));
  auto broken = guard->whenBroken().then([](transfer::Problem problem) { return transfer::MoverEnd(kj::mv(problem)); });
  return running.run().exclusiveJoin(kj::mv(broken)).then([this](transfer::MoverEnd end) { moved(kj::mv(end)); });
}

void Running::moved(transfer::MoverEnd end) {
  countSent();
  KJ_SWITCH_ONEOF(end) {
    KJ_CASE_ONEOF(summary, transfer::Summary) {
      transfer::write(summary, context.getResults().initSummary());
    }
    KJ_CASE_ONEOF(problem, transfer::Problem) {
      if (hub.connected() == nullptr || hub.sessionsMade() != session) {
        fail(Kind::NOT_CONNECTED, "the link to the guest ended during the copy; with --resume it goes on from there");
      } else {
        fail(problem);
      }
    }
  }
}

void Running::tellOutcome() {
  auto results = context.getResults().asReader();
  if (results.hasFailure()) {
    audit.came(results.getFailure());
  } else if (results.hasProblem()) {
    audit.came(transfer::parseProblem(results.getProblem()));
  } else if (results.hasSummary()) {
    audit.came(transfer::parseSummary(results.getSummary()));
  } else {
    audit.came("done");
  }
}

}  // namespace

kj::Promise<void> runFileCall(const FileCallEnvironment& environment, FileCallContext context,
                              kj::Maybe<wire::GuestCalls::Client> guest) {
  auto running = kj::heap<Running>(environment, context);
  auto over = running->run(kj::mv(guest));
  return over.attach(kj::mv(running));
}

}  // namespace postern::host
