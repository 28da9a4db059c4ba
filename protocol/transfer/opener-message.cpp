#include "protocol/transfer/opener-message.h"

#include "protocol/transfer/malformed.h"

namespace postern::transfer {

namespace {

using Error = kj::Maybe<FrameError>;

Error readCommit(schema::Commit::Reader untrusted, Commit& to) {
  using Which = schema::Commit::Outcome::Which;
  to.entry = untrusted.getEntry();
  to.synced = untrusted.getSynced();
  auto outcome = untrusted.getOutcome();
  switch (outcome.which()) {
    case Which::WHOLE:
      to.outcome.init<Whole>();
      return nullptr;
    case Which::UNCHANGED:
      to.outcome.init<Unchanged>();
      return nullptr;
    case Which::FAILED:
      to.outcome.init<Problem>(parseProblem(outcome.getFailed()));
      return nullptr;
    case Which::KEPT:
      to.outcome.init<Kept>();
      return nullptr;
  }
  return FrameError{"an outcome is one that is known"};
}

Error readSent(uint64_t bytes, Sent& to) {
  to = {bytes};
  if (bytes > MAX_FILE_BYTES) return FrameError{"all bytes are at most MAX_FILE_BYTES"};
  return nullptr;
}

Error noContent(size_t contentBytes) {
  if (contentBytes > 0) return FrameError{"data and inlined files alone have content"};
  return nullptr;
}

Error readToMover(schema::ToMover::Reader untrusted, size_t contentBytes, ToMover& to) {
  using Which = schema::ToMover::Which;
  auto which = untrusted.which();
  if (which == Which::FORWARD) return readForward(untrusted.getForward(), contentBytes, to.init<Forward>());
  KJ_IF_MAYBE (error, noContent(contentBytes)) return *error;
  if (which == Which::BACKWARD) return readBackward(untrusted.getBackward(), to.init<Backward>());
  if (which != Which::OPENED) return FrameError{"a message is one that is known"};
  auto opened = untrusted.getOpened();
  to.init<Opened>(Opened{opened.getEntry(), opened.getResumed(), opened.getHasBase()});
  return nullptr;
}

Error readToOpener(schema::ToOpener::Reader untrusted, size_t contentBytes, ToOpener& to) {
  using Which = schema::ToOpener::Which;
  auto which = untrusted.which();
  if (which == Which::FORWARD) return readForward(untrusted.getForward(), contentBytes, to.init<Forward>());
  KJ_IF_MAYBE (error, noContent(contentBytes)) return *error;
  if (which == Which::BACKWARD) return readBackward(untrusted.getBackward(), to.init<Backward>());
  if (which == Which::COMMIT) return readCommit(untrusted.getCommit(), to.init<Commit>());
  if (which == Which::SENT) return readSent(untrusted.getSent(), to.init<Sent>());
  return FrameError{"a message is one that is known"};
}

}  // namespace

kj::OneOf<ToMover, FrameError> parseToMover(FrameView& untrusted) {
  return parsing<ToMover>(
      [&](ToMover& to) { return readToMover(untrusted.as<schema::ToMover>(), untrusted.content().size(), to); });
}

kj::OneOf<ToOpener, FrameError> parseToOpener(FrameView& untrusted) {
  return parsing<ToOpener>(
      [&](ToOpener& to) { return readToOpener(untrusted.as<schema::ToOpener>(), untrusted.content().size(), to); });
}

void write(const Opened& from, schema::Opened::Builder to) {
  to.setEntry(from.entry);
  to.setResumed(from.resumed);
  to.setHasBase(from.hasBase);
}

void write(const Commit& from, schema::Commit::Builder to) {
  to.setEntry(from.entry);
  to.setSynced(from.synced);
  auto outcome = to.initOutcome();
  KJ_SWITCH_ONEOF(from.outcome) {
    KJ_CASE_ONEOF(whole, Whole) outcome.setWhole();
    KJ_CASE_ONEOF(unchanged, Unchanged) outcome.setUnchanged();
    KJ_CASE_ONEOF(problem, Problem) write(problem, outcome.initFailed());
    KJ_CASE_ONEOF(kept, Kept) outcome.setKept();
  }
}

}  // namespace postern::transfer
