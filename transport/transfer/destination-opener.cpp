#include "transport/transfer/destination-opener.h"

#include <kj/debug.h>
#include <time.h>

#include "protocol/transfer/limits.h"
#include "transport/transfer/destination-tree.h"
#include "transport/transfer/open-component.h"
#include "transport/transfer/system-problem.h"

namespace postern::transfer {

namespace {

kj::Duration monotonic() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kj::SECONDS + now.tv_nsec * kj::NANOSECONDS;
}

// One transfer: what comes is given to the tree, files get their names when nothing comes, and progress is told.
class DestinationRun {
 public:
  DestinationRun(kj::AutoCloseFd mover, kj::AutoCloseFd folder, const DestinationOptions& options,
                 DestinationListener& listener, OwnerNames& owners)
      : options(options),
        listener(listener),
        conversation(kj::mv(mover), ForwardCheck::Form::OPENER),
        tree(kj::mv(folder), options, listener, conversation, owners) {}

  OpenerEnd run() {
    while (end == nullptr) {
      step();
      if (end == nullptr && conversation.order().isDone() && !tree.hasOpen()) finish();
    }
    conversation.flush();
    KJ_IF_MAYBE (e, end) return kj::mv(*e);
    KJ_UNREACHABLE;
  }

 private:
  const DestinationOptions& options;
  DestinationListener& listener;
  DestinationConversation conversation;
  DestinationTree tree;
  kj::Maybe<OpenerEnd> end;
  kj::Maybe<kj::Duration> waitsSince;  // files wait for their names
  kj::Duration told = 0 * kj::SECONDS;

  void step() {
    auto heard = conversation.next(patience());
    KJ_SWITCH_ONEOF(heard) {
      KJ_CASE_ONEOF(forward, Forward) hear(kj::mv(forward));
      KJ_CASE_ONEOF(commit, Commit) {
        KJ_IF_MAYBE (problem, tree.commit(kj::mv(commit))) end = OpenerEnd(kj::mv(*problem));
      }
      KJ_CASE_ONEOF(sent, Sent) tree.received(sent.bytes);
      KJ_CASE_ONEOF(quiet, Quiet) {
        tree.flush();
        tell();
        KJ_IF_MAYBE (problem, tree.streamOverQuota()) end = OpenerEnd(kj::mv(*problem));
      }
      KJ_CASE_ONEOF(problem, Problem) end = OpenerEnd(kj::mv(problem));
    }
    if (!tree.waits() && waitsSince != nullptr) {  // a group got its names
      waitsSince = nullptr;
      if (monotonic() - told >= PROGRESS_INTERVAL) tell();
    }
  }

  // How long nothing may come before something is to be done.
  kj::Maybe<kj::Duration> patience() {
    if (tree.waits()) {
      if (waitsSince != nullptr && conversation.hasNext()) return GROUP_PAUSE;
      auto now = monotonic();
      auto since = waitsSince.orDefault(now);
      waitsSince = since;
      return kj::max(0 * kj::SECONDS, since + GROUP_PAUSE - now);
    }
    if (tree.hasOpen()) return PROGRESS_INTERVAL;
    return nullptr;
  }

  void hear(Forward&& forward) {
    KJ_SWITCH_ONEOF(forward) {
      KJ_CASE_ONEOF(totals, Totals) announced(totals);
      KJ_CASE_ONEOF(entry, Entry) tree.entry(kj::mv(entry), conversation.content());
      KJ_CASE_ONEOF(leave, Leave) tree.leave();
      KJ_CASE_ONEOF(failed, EntryFailed) tree.failedAtSource(failed);
      KJ_CASE_ONEOF_DEFAULT break;  // bytes of a file are its mover's business; `done` is seen by run()
    }
  }

  void announced(const Totals& totals) {
    listener.announced(totals);
    KJ_IF_MAYBE (problem, tree.announced(totals)) {
      conversation.put(Backward(Refused{copy(*problem)}));
      end = OpenerEnd(kj::mv(*problem));
      return;
    }
    conversation.put(Backward(Ready{options.into}));
  }

  void tell() {
    told = monotonic();
    auto progress = tree.progress(conversation.order().entriesSeen());
    conversation.put(Backward(progress));
    progress.bytes += tree.openBytes();
    listener.progress(progress);
  }

  void finish() {
    auto summary = tree.finish();
    conversation.put(Backward(Summary(summary)));
    end = OpenerEnd(summary);
  }
};

}  // namespace

OpenerEnd runDestinationOpener(kj::AutoCloseFd mover, kj::AutoCloseFd folder, const DestinationOptions& options,
                               DestinationListener& listener) {
  KJ_REQUIRE(options.into || isComponent(options.name.asBytes()), "the destination's name is a component",
             options.name);
  allowManyDescriptors();
  OwnerNames own;
  auto& owners = options.owners == nullptr ? own : *options.owners;
  DestinationRun run(kj::mv(mover), kj::mv(folder), options, listener, owners);
  return run.run();
}

}  // namespace postern::transfer
