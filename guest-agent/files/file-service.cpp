#include "guest-agent/files/file-service.h"

#include <kj/debug.h>

#include "guest-agent/bounded-text.h"
#include "guest-agent/files/opener-answer.h"
#include "guest-agent/log/log.h"
#include "guest-agent/offered-channel.h"
#include "transport/transfer/file-worker.h"
#include "transport/transfer/mover.h"

namespace postern::guest {

namespace {

using Reason = schema::Refusal::Reason;
using transfer::FileCall;
using transfer::FileOrder;

constexpr size_t SHOWN_PATH_BYTES = 256;

void refuse(schema::GuestCalls::FileResults::Builder results, const FilesRefusal& refusal) {
  auto out = results.initRefusal();
  switch (refusal.kind) {
    case FilesRefusal::Kind::DENIED:
      return fill(out, Denial{kj::str(refusal.text), kj::str(refusal.rule), kj::String()});
    case FilesRefusal::Kind::BUSY:
      return fill(out, Reason::BUSY, refusal.text);
    case FilesRefusal::Kind::FAILED:
      break;
  }
  fill(out, Reason::FAILED, refusal.text);
}

// For the log: "file.put /srv/www for user:alice".
kj::String describe(const FileOrder& order, kj::StringPtr caller) {
  return kj::str(transfer::callName(order.call), ' ', boundedText(order.path, SHOWN_PATH_BYTES), " for ", caller);
}

void logEnd(kj::StringPtr what, const transfer::MoverEnd& end) {
  KJ_SWITCH_ONEOF(end) {
    KJ_CASE_ONEOF(summary, transfer::Summary) {
      logInfo("file-done", kj::str(what, ": ", summary.files, " files, ", summary.directories, " directories, ",
                                   summary.bytes, " bytes, ", summary.failures, " failures"));
    }
    KJ_CASE_ONEOF(problem, transfer::Problem) {
      logWarning("file-ended", kj::str(what, ": ", boundedText(problem.detail, transfer::MAX_PROBLEM_BYTES)));
    }
  }
}

}  // namespace

class FileService::Slot {
 public:
  explicit Slot(FileService& service) : service(service) { ++service.count; }
  ~Slot() { --service.count; }
  KJ_DISALLOW_COPY(Slot);

 private:
  FileService& service;
};

// Destroyed from below: the mover closes channel and socket before the opener is told to end.
struct FileService::Transfer {
  kj::Own<Slot> slot;
  kj::Own<void> opener;
  transfer::MoverGuard guard;  // the guest's lock is the opener's: it sees the paths that there are
  kj::Own<transfer::Mover> mover;
};

kj::Own<FileService::Caller> FileService::newCaller(Session& session, kj::StringPtr callerText) {
  return kj::heap<Caller>(*this, session, callerText);
}

FileService::Caller::Caller(FileService& service, Session& session, kj::StringPtr text)
    : service(service), session(session), text(text), tasks(*this) {}

// T72
kj::Promise<void> FileService::Caller::file(DecideFile& decide, schema::GuestCalls::FileParams::Reader untrusted,
                                            schema::GuestCalls::FileResults::Builder results) {
  auto parsed = transfer::parseFileOrder(untrusted.getOrder());
  KJ_IF_MAYBE (rule, parsed.tryGet<kj::StringPtr>()) {
    fill(results.initRefusal(), Reason::INVALID, *rule);
    return kj::READY_NOW;
  }
  auto& order = parsed.get<FileOrder>();
  if (transfer::hasChannel(order.call) != (untrusted.getChannel() != 0)) {
    fill(results.initRefusal(), Reason::INVALID, "get, put, list and stat need a channel; mkdir and remove have none");
    return kj::READY_NOW;
  }
  KJ_IF_MAYBE (denial, decide(order)) {
    fill(results.initRefusal(), *denial);
    return kj::READY_NOW;
  }
  if (service.count >= transfer::MAX_TRANSFERS) {
    fill(results.initRefusal(), Reason::BUSY,
         kj::str("this guest has ", transfer::MAX_TRANSFERS, " file transfers under way; wait for one to end"));
    return kj::READY_NOW;
  }
  if (transfer::FileWorker::leftBehind() > transfer::MAX_LEFT_BEHIND) {
    fill(results.initRefusal(), Reason::BUSY,
         "earlier file transfers are over, but a disk of this guest still holds their files; wait until it answers");
    return kj::READY_NOW;
  }
  Channel channel;
  if (transfer::hasChannel(order.call)) {
    auto accepted = session.bulk().accept({untrusted.getChannel(), untrusted.getCredit()});
    KJ_IF_MAYBE (error, accepted.tryGet<BulkError>()) return refuseOffer(session, *error, results.initRefusal());
    channel = kj::mv(accepted.get<kj::Own<BulkChannel>>());
  }
  return carryOut(kj::mv(order), kj::mv(channel), kj::heap<Slot>(service), results);
}

// T75
kj::Promise<void> FileService::Caller::carryOut(FileOrder orderParam, Channel channel, kj::Own<Slot> slot,
                                                schema::GuestCalls::FileResults::Builder results) {
  auto order = kj::heap(kj::mv(orderParam));
  auto opening = service.broker.openFiles(*order, text);
  return opening.then([this, order = kj::mv(order), channel = kj::mv(channel), slot = kj::mv(slot),
                       results](kj::OneOf<OpenedFiles, FilesRefusal> answer) mutable -> kj::Promise<void> {
    KJ_IF_MAYBE (refusal, answer.tryGet<FilesRefusal>()) {
      refuse(results, *refusal);
      return kj::READY_NOW;
    }
    auto& opened = answer.get<OpenedFiles>();
    KJ_IF_MAYBE (c, channel) {
      begin(*order, kj::mv(*c), kj::mv(opened), kj::mv(slot));
      return kj::READY_NOW;
    }
    return answerOfOpener(kj::mv(opened.socket), service.port)
        .attach(kj::mv(opened.opener), kj::mv(slot))
        .then([results](kj::Maybe<transfer::Problem> problem) mutable {
          KJ_IF_MAYBE (p, problem) transfer::write(*p, results.initProblem());
        });
  });
}

void FileService::Caller::begin(const FileOrder& order, kj::Own<BulkChannel> channel, OpenedFiles opened,
                                kj::Own<Slot> slot) {
  auto transfer = kj::heap<Transfer>();
  transfer->slot = kj::mv(slot);
  transfer->opener = kj::mv(opened.opener);
  bool listing = order.call == FileCall::LIST || order.call == FileCall::STAT;
  transfer::MoverOptions options{listing, order.verify, order.sparse};
  auto newMover = order.call == FileCall::PUT ? transfer::newDestinationMover : transfer::newSourceMover;
  transfer->mover = newMover(service.port, kj::mv(opened.socket), kj::mv(channel), options, transfer->guard);
  auto running = transfer->mover->run();
  tasks.add(running.then([what = describe(order, text)](transfer::MoverEnd end) { logEnd(what, end); })
                .attach(kj::mv(transfer)));
}

void FileService::Caller::taskFailed(kj::Exception&& exception) {
  logWarning("file-failed", exception.getDescription());
}

}  // namespace postern::guest
