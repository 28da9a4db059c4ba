#include "transport/transfer/destination-conversation.h"

#include "transport/transfer/source-conversation.h"

namespace postern::transfer {

DestinationConversation::DestinationConversation(kj::AutoCloseFd mover, ForwardCheck::Form form)
    : socket(kj::mv(mover)), check(form), listing(form == ForwardCheck::Form::LISTING) {}

bool DestinationConversation::hasNext() {
  if (socket.hasNext()) return true;
  flush();
  return false;
}

DestinationConversation::Heard DestinationConversation::next(kj::Maybe<kj::Duration> limit) {
  if (!hasNext() && gone) return moverGone();
  auto next = socket.next(limit);
  KJ_IF_MAYBE (n, next) {
    if (n->is<MoverGone>()) return moverGone();
    if (n->is<FrameError>()) return brokenRule(n->get<FrameError>());
    auto& view = *n->get<FrameView*>();
    auto parsed = parseToOpener(view);
    if (parsed.is<FrameError>()) return brokenRule(parsed.get<FrameError>());
    auto& message = parsed.get<ToOpener>();
    KJ_SWITCH_ONEOF(message) {
      KJ_CASE_ONEOF(forward, Forward) {
        lastContent = view.content();
        if (listing && forward.is<Entry>()) lastPath = check.pathOf(forward.get<Entry>().name);
        if (listing && forward.is<EntryFailed>()) lastPath = check.pathOf(forward.get<EntryFailed>().name);
        KJ_IF_MAYBE (error, check.check(forward, lastContent.size())) return brokenRule(*error);
        return kj::mv(forward);
      }
      KJ_CASE_ONEOF(commit, Commit) return kj::mv(commit);
      KJ_CASE_ONEOF(sent, Sent) return sent;
      KJ_CASE_ONEOF_DEFAULT break;
    }
    return brokenRule({"a destination's mover sends what comes forward, and nothing else"});
  }
  return Quiet();
}

void DestinationConversation::put(const Backward& message) {
  write(message, frame.init<schema::ToMover>().initBackward());
  if (!socket.put(frame)) gone = true;
}

void DestinationConversation::put(const Opened& message, kj::ArrayPtr<const int> descriptors) {
  write(message, frame.init<schema::ToMover>().initOpened());
  if (!socket.put(frame, nullptr, descriptors)) gone = true;
}

void DestinationConversation::flush() {
  if (!socket.flush()) gone = true;
}

}  // namespace postern::transfer
