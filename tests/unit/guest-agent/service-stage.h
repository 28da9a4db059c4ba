#pragma once
// ServiceStage: FileStage with services of the guest: a configuration that a test replaces as a reload does, a real
// broker that connects to real targets and starts real programs, and what a host does with a channel.

#include <sys/resource.h>

#include "guest-agent/services/service-plan.h"
#include "tests/unit/guest-agent/file-stage.h"

namespace postern::guest::test {

struct ServiceStage : FileStage {
  // FileStage's rules, and [service.NAME] tables; "%" in those is this stage's folder.
  ServiceStage(kj::StringPtr rules, kj::StringPtr services, kj::Maybe<schema::Host::Client> theHost = nullptr);
  ~ServiceStage() noexcept(false);

  ServicesSettings exported;

  // The broker has the new configuration, and the agent hears of it.
  void reload(kj::StringPtr rules, kj::StringPtr services);

  using Response = capnp::Response<schema::GuestCalls::ConnectResults>;
  struct Called {
    kj::Promise<Response> response;
    kj::Own<BulkChannel> channel;
  };
  Called connect(schema::GuestCalls::Client calls, kj::StringPtr service);
  schema::GuestCalls::Client callsForVm(kj::StringPtr name);
  // The guest reached it; fails the test otherwise.
  kj::Own<BulkChannel> reach(schema::GuestCalls::Client calls, kj::StringPtr service);
  // "denied: why", or empty.
  kj::String refusalOf(schema::GuestCalls::Client calls, kj::StringPtr service);

  void send(BulkChannel& channel, kj::StringPtr text);
  // What came until there are so many bytes or the channel ends.
  kj::String receive(BulkChannel& channel, size_t bytes = size_t(1) << 20);
  // So many bytes from a target's socket, or what there is before its end, while the loop turns.
  kj::String readFrom(int socket, size_t bytes);
  // How it ends, whatever comes before.
  BulkEnd endOf(BulkChannel& channel);
  bool isOpen(BulkChannel& channel);  // sends what an echo sends back
  bool settlesAt(size_t channels);    // of the guest's

 private:
  kj::OneOf<ServicePlan, ServiceRefusal> plan(kj::StringPtr service, kj::StringPtr caller);
  kj::Promise<kj::Maybe<BulkEnd>> receiveInto(BulkChannel& channel, kj::Vector<char>& text, size_t bytes);
};

// A target: a listening socket of the test's own, with a thread that sends back what each connection sends.
class EchoTarget {
 public:
  // On loopback, or at the path of a Unix socket.
  explicit EchoTarget(kj::StringPtr path = "");
  ~EchoTarget() noexcept(false);
  KJ_DISALLOW_COPY(EchoTarget);

  const kj::String address;  // "tcp:127.0.0.1:12345"

 private:
  kj::AutoCloseFd socket;
  kj::AutoCloseFd stop;  // its other end is the thread's
  kj::AutoCloseFd stopped;
  kj::Maybe<kj::Own<kj::Thread>> thread;

  EchoTarget(kj::AutoCloseFd socket, kj::StringPtr path);
  void serve();
};

// A listening socket that nobody serves; accepts for the test, which blocks.
struct PlainTarget {
  explicit PlainTarget(kj::StringPtr path = "");
  kj::AutoCloseFd accept();
  bool hasConnection();

  kj::AutoCloseFd socket;
  kj::String address;
};

// How many descriptors this process may have, until it is destroyed.
struct DescriptorLimit {
  DescriptorLimit() { getrlimit(RLIMIT_NOFILE, &before); }
  ~DescriptorLimit() { setrlimit(RLIMIT_NOFILE, &before); }
  KJ_DISALLOW_COPY(DescriptorLimit);
  // False if the hard limit is lower.
  bool set(rlim_t most) {
    struct rlimit now {
      most, before.rlim_max
    };
    return setrlimit(RLIMIT_NOFILE, &now) == 0;
  }
  struct rlimit before;
};

}  // namespace postern::guest::test
