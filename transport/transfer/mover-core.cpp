#include "transport/transfer/mover-core.h"

namespace postern::transfer {

namespace {

ForwardCheck::Form formOf(const MoverOptions& options) {
  return options.listing ? ForwardCheck::Form::LISTING : ForwardCheck::Form::CHANNEL;
}

}  // namespace

MoverCore::MoverCore(kj::UnixEventPort& port, kj::AutoCloseFd socket, kj::Own<BulkChannel> channelParam,
                     const MoverOptions& options, MoverGuard& guard)
    : port(port),
      opener(port, kj::mv(socket)),
      channel(kj::mv(channelParam)),
      writer(*channel),
      options(options),
      guard(guard),
      forwardCheck(formOf(options)),
      ledger(guard) {}

kj::Promise<MoverEnd> MoverCore::run() {
  auto paf = kj::newPromiseAndFulfiller<MoverEnd>();
  ending = kj::mv(paf.fulfiller);
  auto failed = [this](kj::Exception&& exception) { internalError(kj::mv(exception)); };
  openerTask = kj::evalLater([this]() { return fromOpener(); }).eagerlyEvaluate(failed);
  channelTask = kj::evalLater([this]() { return fromChannel(); }).eagerlyEvaluate(failed);
  return paf.promise.then([this](MoverEnd how) { return close(kj::mv(how)); });
}

// Ending -------------------------------------------------------------------------------------------------------------

kj::Promise<void> MoverCore::over(MoverEnd how) {
  KJ_IF_MAYBE (fulfiller, ending) {
    auto own = kj::mv(*fulfiller);
    ending = nullptr;
    own->fulfill(kj::mv(how));
  }
  return kj::NEVER_DONE;
}

kj::Promise<void> MoverCore::broken(FrameError error) {
  return over(problem(ProblemKind::PROTOCOL, kj::str("the other end broke a rule: ", error.rule)));
}

kj::Promise<void> MoverCore::channelEnded(BulkEnd how) {
  if (how == BulkEnd::SESSION_ENDED) {
    return over(problem(ProblemKind::FAILED, kj::str("the connection between host and guest was lost")));
  }
  return over(problem(ProblemKind::FAILED, kj::str("the other end broke off the transfer")));
}

kj::Promise<void> MoverCore::openerEnded() {
  return over(problem(ProblemKind::FAILED, kj::str("the program that has the files open has ended")));
}

// Our own bug, or want of memory or threads. What it says stays here.
void MoverCore::internalError(kj::Exception&&) {
  over(problem(ProblemKind::FAILED, kj::str("an internal error")));
}

kj::Promise<MoverEnd> MoverCore::close(MoverEnd how) {
  openerTask = nullptr;
  channelTask = nullptr;
  dropFiles();
  worker = nullptr;
  KJ_IF_MAYBE (problem, how.tryGet<Problem>()) {
    ledger.brokenOff(*problem);
    leaveOpener();
  } else {
    ledger.finished();
  }
  opener.flush();
  writer.stop();
  channel = nullptr;
  auto sent = opener.whenSent().exclusiveJoin(port.getTimer().afterDelay(FAREWELL));
  return sent.then([this, how = kj::mv(how)]() mutable {
    opener.close();
    return kj::mv(how);
  });
}

// The opener ---------------------------------------------------------------------------------------------------------

FileWorker& MoverCore::files() {
  KJ_IF_MAYBE (one, worker) return **one;
  return *worker.emplace(kj::heap<FileWorker>(port));
}

kj::Promise<MoverCore::Packet> MoverCore::nextPacket() {
  return opener.receive().then([this](OpenerLink::Received received) -> kj::Promise<Packet> {
    KJ_IF_MAYBE (incoming, received.tryGet<OpenerLink::Incoming>()) {
      Packet packet{incoming->frames, {}};
      // Even what is not wanted is closed by the thread.
      for (auto& fd : incoming->fds) packet.fds.add(files().adopt(kj::mv(fd)));
      if (!incoming->fdsWereLost) return kj::mv(packet);
      over(problem(ProblemKind::FAILED, kj::str("a file's descriptor did not arrive; are too many open?")));
    } else if (received.is<PacketsEnded>()) {
      openerEnded();
    } else {
      broken({"a packet is at most MAX_PACKET_BYTES"});
    }
    return kj::NEVER_DONE;
  });
}

kj::Maybe<kj::Promise<void>> MoverCore::pass(const FrameView& frame, Envelope kind) {
  if (opener.pass(frame, kind)) return nullptr;
  return broken({"a frame's message is at most MAX_MESSAGE_BYTES"});
}

kj::Promise<void> MoverCore::whenOpenerTakes() {
  opener.flush();
  if (!opener.isFull()) return kj::READY_NOW;
  return opener.whenSent();
}

// Forward and backward -----------------------------------------------------------------------------------------------

kj::Maybe<kj::Promise<void>> MoverCore::checkForward(const Forward& message, size_t contentBytes) {
  KJ_IF_MAYBE (error, forwardCheck.check(message, contentBytes)) return broken(*error);
  return nullptr;
}

kj::Maybe<kj::Promise<void>> MoverCore::admit(const Entry& entry, size_t contentBytes, const Forward& message) {
  auto path = forwardCheck.pathOf(entry.name);
  KJ_IF_MAYBE (ended, checkForward(message, contentBytes)) return kj::mv(*ended);
  KJ_IF_MAYBE (problem, guard.admit(path, entry)) return over(kj::mv(*problem));
  ledger.add(forwardCheck.entryNumber(), kj::mv(path));
  KJ_IF_MAYBE (hash, entry.hash) ledger.verified(forwardCheck.entryNumber(), *hash);
  return nullptr;
}

void MoverCore::send(const Forward& message) {
  write(message, builder.init<schema::Forward>());
  writer.put(builder.toArray());
}

void MoverCore::send(const Backward& message) {
  write(message, builder.init<schema::Backward>());
  writer.put(builder.toArray());
}

kj::Promise<void> MoverCore::whenSendable(size_t limit) {
  return writer.whenWaiting(limit).then([this](bool canSend) -> kj::Promise<void> {
    if (canSend) return kj::READY_NOW;
    return channelEnded(BulkEnd::RESET);
  });
}

}  // namespace postern::transfer
