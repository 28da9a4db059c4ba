#pragma once
// Invocation: one run of postern. Commands are plain sequences that wait for each answer; what ends a command early is
// thrown as a CommandFailure and caught by runPostern() alone, which prints it once and gives the exit status.
//
// Every wait ends: with the answer, with --timeout, at Ctrl-C, or when the other end goes away.

#include "host/cli/arguments.h"
#include "host/cli/exit-status.h"
#include "host/cli/table.h"
#include "host/cli/world.h"
#include "host/paths.h"
#include "transport/json-writer.h"

namespace postern::cli {

constexpr auto DEFAULT_TIMEOUT = 10 * kj::SECONDS;

struct CommandFailure {
  client::Failure failure;
};
[[noreturn]] void fail(client::FailureKind kind, kj::String text);

class Invocation {
 public:
  Invocation(World& world, const Options& options) : world(world), options(options), paths(options.root) {}
  KJ_DISALLOW_COPY(Invocation);

  World& world;
  const Options& options;
  const host::Paths paths;

  kj::Duration timeout() const { return options.timeout.orDefault(DEFAULT_TIMEOUT); }
  Colours colours() const { return world.wantsColours() ? Colours::ON : Colours::OFF; }

  // The connection to posternd, made at the first use.
  client::ControlClient& control();
  // A connection to the VM's session with what policy grants of `calls`; file.* calls for `path`.
  kj::Own<client::VmClient> openVm(kj::StringPtr vm, kj::ArrayPtr<const kj::StringPtr> calls,
                                   kj::StringPtr path = nullptr);

  // The answer. `from` is who owes it: "posternd", or a VM (whose session does).
  template <typename T>
  T await(kj::Promise<T> promise, kj::StringPtr from, kj::Duration limit) {
    kj::Maybe<T> answer;
    waitFor(promise.then([&answer](T&& value) { answer = kj::mv(value); }), from, limit);
    return kj::mv(KJ_ASSERT_NONNULL(answer));
  }
  template <typename T>
  auto await(T&& promise, kj::StringPtr from) {
    return await(kj::Promise<capnpResult<T>>(kj::mv(promise)), from, timeout());
  }
  // Until it is done, without a limit: for what goes on until Ctrl-C.
  void awaitForever(kj::Promise<void> promise, kj::StringPtr from) { waitFor(kj::mv(promise), from, nullptr); }
  // Waits until then, or for Ctrl-C.
  void sleepUntil(kj::TimePoint then);

  // Throws if the answer has a failure. `vm` is what the failure is about; empty: nothing special.
  template <typename Response>
  void check(const Response& response, kj::StringPtr vm) {
    if (response.hasFailure()) throw CommandFailure{about(vm, client::failureOf(response.getFailure()))};
  }
  // The failure with the VM's name before its text, where it is not there yet.
  static client::Failure about(kj::StringPtr vm, client::Failure failure);

 private:
  template <typename T>
  struct Unwrap;
  template <typename T>
  struct Unwrap<kj::Promise<T>> {
    using Type = T;
  };
  template <typename T>
  struct Unwrap<capnp::RemotePromise<T>> {
    using Type = capnp::Response<T>;
  };
  template <typename T>
  using capnpResult = typename Unwrap<kj::Decay<T>>::Type;

  kj::Maybe<kj::Own<client::ControlClient>> connected;

  void waitFor(kj::Promise<void> promise, kj::StringPtr from, kj::Maybe<kj::Duration> limit);
};

}  // namespace postern::cli
