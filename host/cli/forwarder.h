#pragma once
// Forwarder: hands connections that come to a local address to a service of a VM, each as a channel of its own: the
// accepted socket itself goes to the VM's session process, so that no byte passes here. What becomes of one is no
// other's business. The session process may come and go, and so may posternd: each connection is granted by the one
// that runs.

#include <kj/async-unix.h>

#include "host/cli/invocation.h"
#include "host/client/service-channel.h"

namespace postern::cli {

class Forwarder final : private kj::TaskSet::ErrorHandler {
 public:
  // `listener` listens, and is not blocking. `vm` has been granted the service. All references outlive this object.
  Forwarder(Invocation& run, const ForwardArguments& arguments, kj::AutoCloseFd listener, kj::Own<client::VmClient> vm);
  ~Forwarder() noexcept(false) {}
  KJ_DISALLOW_COPY(Forwarder);

  // Never resolves.
  kj::Promise<void> run() { return acceptNext(); }

 private:
  using Outcome = client::Outcome<client::OpenChannel>;

  Invocation& invocation;
  const ForwardArguments& arguments;
  const kj::String call;
  const kj::AutoCloseFd listener;
  const bool isTcp;
  kj::UnixEventPort::FdObserver observer;
  // For new channels; its task owns it. When somebody comes and there is none, one is asked for, by one of them at a
  // time.
  kj::Maybe<client::VmClient&> vm;
  kj::Maybe<kj::ForkedPromise<void>> opening;
  kj::TaskSet tasks;

  kj::Promise<void> acceptNext();
  kj::Promise<void> serve(kj::AutoCloseFd socket);
  kj::Promise<Outcome> connect(int socket);
  kj::Promise<Outcome> connectOnce(int socket);
  // Null: there is a `vm`.
  kj::Promise<kj::Maybe<client::Failure>> opened();
  kj::Promise<client::Outcome<kj::Own<client::VmClient>>> open();
  void use(kj::Own<client::VmClient> client);
  void leave(client::VmClient& used);
  void tell(client::Failure failure);
  void taskFailed(kj::Exception&& exception) override;
};

}  // namespace postern::cli
