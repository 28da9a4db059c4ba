#include "transport/transfer/source-conversation.h"

#include "transport/transfer/system-problem.h"

namespace postern::transfer {

Problem moverGone() {
  return problem(ProblemKind::FAILED, kj::str("the transfer was cut off before its end"));
}

Problem brokenRule(FrameError error) {
  return problem(ProblemKind::PROTOCOL, kj::str("the other end broke a rule: ", error.rule));
}

SourceConversation::SourceConversation(kj::AutoCloseFd mover, SourceListener& listener,
                                       kj::Function<kj::String(kj::StringPtr)> shown)
    : socket(kj::mv(mover)), listener(listener), shown(kj::mv(shown)) {
  socket.whileBlocked([this]() { return takeAll(); });
}

kj::Maybe<OpenerEnd> SourceConversation::announce(const Totals& totals) {
  if (!put(Forward(totals)) || !flush()) return end();
  while (!check.isReady()) {
    auto next = socket.next(READY_DEADLINE);
    if (next == nullptr) {
      return OpenerEnd(problem(ProblemKind::FAILED,
                               kj::str("the destination did not answer within ", READY_DEADLINE / kj::SECONDS, " s")));
    }
    if (!take(kj::mv(next))) return end();
  }
  return nullptr;
}

bool SourceConversation::put(const Forward& message, int descriptor) {
  write(message, frame.init<schema::ToMover>().initForward());
  if (message.is<Entry>()) check.sentEntry(message.get<Entry>().wantsBase);
  if (message.is<Done>()) check.sentDone();
  return afterPut(descriptor < 0 ? socket.put(frame) : socket.put(frame, nullptr, kj::arrayPtr(&descriptor, 1)));
}

SourceConversation::Inlined SourceConversation::beginInlined(const Forward& entry, size_t contentBytes) {
  auto forward = frame.init<schema::ToMover>().initForward();
  write(entry, forward);
  auto hash = forward.getEntry().hasHash() ? forward.getEntry().getHash() : kj::ArrayPtr<kj::byte>();
  return {socket.contentSpace(frame, contentBytes), hash};
}

bool SourceConversation::putInlined(kj::ArrayPtr<const kj::byte> content) {
  check.sentEntry(false);
  return afterPut(socket.put(frame, content));
}

bool SourceConversation::flush() {
  return socket.flush() || cutOff();
}

bool SourceConversation::cutOff() {
  takeAll();  // why it has gone, where it was said
  return over(moverGone());
}

bool SourceConversation::afterPut(bool done) {
  if (!done) return cutOff();
  if (--putsUntilLook > 0) return true;
  putsUntilLook = PUTS_PER_LOOK;
  return takeAll();
}

bool SourceConversation::takeAll() {
  while (ended == nullptr && socket.hasNext()) {
    if (!take(socket.next(nullptr))) return false;
  }
  return ended == nullptr;
}

bool SourceConversation::take(kj::Maybe<kj::OneOf<FrameView*, FrameError, MoverGone>> next) {
  KJ_IF_MAYBE (n, next) {
    if (n->is<MoverGone>()) return over(moverGone());
    if (n->is<FrameError>()) return over(brokenRule(n->get<FrameError>()));
    auto parsed = parseToOpener(*n->get<FrameView*>());
    if (parsed.is<FrameError>()) return over(brokenRule(parsed.get<FrameError>()));
    auto& message = parsed.get<ToOpener>();
    KJ_SWITCH_ONEOF(message) {
      KJ_CASE_ONEOF(backward, Backward) return hear(kj::mv(backward));
      KJ_CASE_ONEOF(sent, Sent) {
        listener.sent(sent.bytes);
        return true;
      }
      KJ_CASE_ONEOF_DEFAULT break;
    }
    return over(brokenRule({"a source's mover sends what comes back, and nothing else"}));
  }
  return true;
}

bool SourceConversation::hear(Backward&& message) {
  KJ_IF_MAYBE (error, check.check(message)) return over(brokenRule(*error));
  KJ_SWITCH_ONEOF(message) {
    KJ_CASE_ONEOF(refused, Refused) return over(kj::mv(refused.problem));
    KJ_CASE_ONEOF(failed, DestinationFailed) listener.failed(shown(failed.path), atDestination(failed.problem));
    KJ_CASE_ONEOF(progress, Progress) listener.progress(progress);
    KJ_CASE_ONEOF(summary, Summary) return over(kj::mv(summary));
    KJ_CASE_ONEOF_DEFAULT break;  // bases and hashes are the mover's
  }
  return true;
}

OpenerEnd SourceConversation::finish() {
  if (!put(Forward(Done())) || !flush()) return end();
  while (take(socket.next(nullptr))) {
  }
  return end();
}

OpenerEnd SourceConversation::end() {
  KJ_IF_MAYBE (e, ended) {
    if (e->is<Summary>()) return e->get<Summary>();
    return copy(e->get<Problem>());
  }
  return moverGone();
}

bool SourceConversation::over(OpenerEnd&& end) {
  if (ended == nullptr) ended = kj::mv(end);
  return false;
}

}  // namespace postern::transfer
