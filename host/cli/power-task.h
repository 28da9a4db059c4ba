#pragma once
// PowerTask: one VM's shutdown, restart or suspend, from the request to its end. Several run beside each other.
//
//   accepted -> hook, waiting ... -> stopping -> gone (restart: back)        each told as it happens
//
// The guest asks us (PowerObserver.proceed) before it begins and at the point of no return; we say yes as long as this
// program waits and its time is not over. Without --wait the end is "stopping", with it "gone", and, for a VM whose QMP
// socket is known, QEMU's word as well. --force-after: what is
// not done by then, except for a denial or a refusal, is done by QEMU.
//
// Owned by the command, which lives as long; calls go over connections of its own and end with it.

#include "host/cli/invocation.h"

namespace postern::cli {

class PowerTask {
 public:
  struct Step {
    kj::StringPtr word;  // accepted, hook, waiting, stopping, gone, back, off, failed, forced
    kj::String text;     // for a person
    kj::Duration after;  // since the beginning
  };

  // More are not kept or told; a guest could send any number.
  static constexpr size_t MAX_STEPS = 1000;

  // `limit` is for all of it.
  PowerTask(Invocation& run, const PowerArguments& arguments, kj::StringPtr vm, kj::Duration limit);
  ~PowerTask() noexcept(false);
  KJ_DISALLOW_COPY(PowerTask);

  // Resolves at the end, good or bad.
  kj::Promise<void> go();

  kj::StringPtr name() const { return vm; }
  kj::ArrayPtr<const Step> steps() const { return done; }
  const kj::Maybe<client::Failure>& failure() const { return failed; }

 private:
  class Observer;

  Invocation& run;
  const PowerArguments& arguments;
  const kj::StringPtr vm;
  const kj::Duration limit;
  const kj::TimePoint began;

  kj::Vector<Step> done;
  kj::Maybe<client::Failure> failed;
  bool accepted = false;
  bool over = false;
  bool forced = false;
  bool guestGone = false;
  bool qemuDone = true;  // nothing is expected of QEMU, or it has come
  kj::PromiseFulfillerPair<void> end;
  // Each is begun once. The connection comes last: it goes first, and its observer with it.
  kj::Promise<void> deadline;
  kj::Promise<void> opening;
  kj::Promise<void> force;
  kj::Own<client::VmClient> session;
  kj::Promise<void> request;
  kj::Promise<void> gone;
  kj::Promise<void> off;

  void begin(kj::Own<client::VmClient> vmClient);
  void ask();
  void watchForGone();
  void watchQemu();
  kj::Promise<void> forceByQemu();

  bool mayProceed() const;
  void step(kj::StringPtr word, kj::String text);
  void progress(schema::PowerStep::Reader progress);
  void accept();
  void wentAway(kj::StringPtr how);
  void fail(client::Failure failure);    // unless QEMU does it instead
  void giveUp(client::Failure failure);  // for good
  void late();
  void finish();
};

}  // namespace postern::cli
