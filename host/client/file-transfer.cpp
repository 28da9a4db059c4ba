#include "host/client/file-transfer.h"

#include <fcntl.h>
#include <kj/debug.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/client/quiet-thread.h"
#include "transport/transfer/source-conversation.h"

namespace postern::client {

namespace {

using FileResponse = capnp::Response<host::schema::VmCalls::FileResults>;
constexpr kj::StringPtr SESSION = "the session of the VM"_kj;

transfer::SourceOptions sourceOptions(const FileOrder& order) {
  transfer::SourceOptions options;
  options.recursive = order.recursive;
  options.archive = order.archive;
  options.verify = order.verify;
  return options;
}

transfer::DestinationOptions destinationOptions(const VmClient& vm, const FileOrder& order, kj::StringPtr name) {
  transfer::DestinationOptions options;
  options.archive = order.archive;
  options.noClobber = order.noClobber;
  options.resume = order.resume;
  options.verify = order.verify;
  options.keepOwner = order.archive && geteuid() == 0;
  options.name = kj::str(name);
  options.special = vm.special() == VmClient::Special::YES;
  return options;
}

FileOutcome outcomeOf(FileResponse& response) {
  if (response.hasFailure()) return failureOf(response.getFailure());
  if (response.hasProblem()) return transfer::parseProblem(response.getProblem());
  return transfer::parseSummary(response.getSummary());
}

kj::Own<TransferWatch> newWatch(int opener) {
  int copy;
  KJ_SYSCALL(copy = fcntl(opener, F_DUPFD_CLOEXEC, 3));
  return kj::atomicRefcounted<TransferWatch>(kj::AutoCloseFd(copy));
}

}  // namespace

FileTransfer::FileTransfer(VmClient& vm, const FileOrder& order, Opener opener) : call(order.call) {
  auto pair = host::newSocketPair(SOCK_SEQPACKET);
  watch = newWatch(pair.first);
  auto ended = kj::newPromiseAndCrossThreadFulfiller<void>();
  openerEnd = ended.promise.fork();
  thread = newQuietThread([opener = kj::mv(opener), mover = kj::mv(pair.first), watch = kj::atomicAddRef(*watch),
                           ended = kj::mv(ended.fulfiller)]() mutable {
    kj::Maybe<transfer::OpenerEnd> end;
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { end = opener(kj::mv(mover), *watch); })) {
      end = transfer::OpenerEnd(transfer::problem(transfer::ProblemKind::FAILED, kj::str(exception->getDescription())));
    }
    watch->end(kj::mv(KJ_ASSERT_NONNULL(end)));
    ended->fulfill();
  });
  auto request = vm.calls().fileRequest();
  write(order, request.initOrder());
  request.setOpener(host::newDescriptor(kj::mv(pair.second)));
  answer = request.send().then(
      [this](FileResponse response) {
        return Ended{client::outcomeOf(response), watch->hasEnded()};
      },
      [this](kj::Exception&& exception) {
        return Ended{failureOf(exception, SESSION), watch->hasEnded()};
      });
}

FileTransfer::~FileTransfer() noexcept(false) {
  answer = nullptr;
  watch->abandon();
}

kj::Promise<FileOutcome> FileTransfer::whenOver() {
  auto& promise = KJ_REQUIRE_NONNULL(answer, "whenOver() is asked once");
  auto result = promise.then([this](Ended ended) {
    // The session has said its last word, and what of it is for the opener lies in its socket. More does not come.
    watch->shutDown();
    return openerEnd.addBranch().then([this, ended = kj::mv(ended)]() mutable { return outcomeOf(kj::mv(ended)); });
  });
  answer = nullptr;
  return result;
}

FileOutcome FileTransfer::outcomeOf(Ended ended) {
  auto opener = KJ_ASSERT_NONNULL(watch->takeEnd());
  if (ended.answer.is<Failure>()) return kj::mv(ended.answer);
  KJ_IF_MAYBE (problem, opener.tryGet<transfer::Problem>()) {
    bool cut = problem->detail == transfer::moverGone().detail;
    if (ended.answer.is<transfer::Summary>()) {
      // What was put is there, whether this end has heard of it or not; what was to be got is not.
      if (cut && call == FileCall::PUT) return kj::mv(ended.answer);
      return kj::mv(*problem);
    }
    // Who ended first knows why.
    if (ended.openerWasFirst && !cut) return kj::mv(*problem);
    return kj::mv(ended.answer);
  }
  // The opener's own summary, because it has heard of failures on both sides.
  if (ended.answer.is<transfer::Summary>()) return opener.get<transfer::Summary>();
  return kj::mv(ended.answer);
}

kj::Promise<void> FileTransfer::cancel() {
  answer = nullptr;
  watch->abandon();
  return openerEnd.addBranch();
}

void FileTransfer::release() {
  cancel();
  KJ_IF_MAYBE (running, thread) {
    (*running)->detach();
    thread = nullptr;
  }
}

kj::Own<FileTransfer> FileTransfer::put(VmClient& vm, const FileOrder& order, kj::Vector<transfer::SourceTop> tops) {
  return kj::heap<FileTransfer>(
      vm, order,
      [tops = kj::mv(tops), options = sourceOptions(order)](kj::AutoCloseFd mover, TransferWatch& watch) mutable {
        return transfer::runSourceOpener(kj::mv(mover), kj::mv(tops), options, watch);
      });
}

kj::Own<FileTransfer> FileTransfer::putStream(VmClient& vm, const FileOrder& order, transfer::SourceStream stream) {
  return kj::heap<FileTransfer>(
      vm, order,
      [stream = kj::mv(stream), options = sourceOptions(order)](kj::AutoCloseFd mover, TransferWatch& watch) mutable {
        return transfer::runSourceStream(kj::mv(mover), kj::mv(stream), options, watch);
      });
}

kj::Own<FileTransfer> FileTransfer::get(VmClient& vm, const FileOrder& order, kj::AutoCloseFd folder,
                                        kj::StringPtr name) {
  return kj::heap<FileTransfer>(vm, order,
                                [folder = kj::mv(folder), options = destinationOptions(vm, order, name)](
                                    kj::AutoCloseFd mover, TransferWatch& watch) mutable {
                                  return transfer::runDestinationOpener(kj::mv(mover), kj::mv(folder), options, watch);
                                });
}

kj::Own<FileTransfer> FileTransfer::getStream(VmClient& vm, const FileOrder& order, kj::AutoCloseFd stream) {
  return kj::heap<FileTransfer>(vm, order,
                                [stream = kj::mv(stream)](kj::AutoCloseFd mover, TransferWatch& watch) mutable {
                                  return transfer::runDestinationStream(kj::mv(mover), kj::mv(stream), watch);
                                });
}

kj::Own<FileTransfer> FileTransfer::list(VmClient& vm, const FileOrder& order) {
  return kj::heap<FileTransfer>(vm, order, [](kj::AutoCloseFd mover, TransferWatch& watch) {
    return transfer::runListing(kj::mv(mover), watch);
  });
}

kj::Promise<kj::Maybe<kj::OneOf<transfer::Problem, Failure>>> carryOut(VmClient& vm, const FileOrder& order) {
  using Result = kj::Maybe<kj::OneOf<transfer::Problem, Failure>>;
  auto request = vm.calls().fileRequest();
  write(order, request.initOrder());
  return request.send().then(
      [](FileResponse response) -> Result {
        if (response.hasFailure()) return {failureOf(response.getFailure())};
        if (response.hasProblem()) return {transfer::parseProblem(response.getProblem())};
        return nullptr;
      },
      [](kj::Exception&& exception) -> Result { return {failureOf(exception, SESSION)}; });
}

}  // namespace postern::client
