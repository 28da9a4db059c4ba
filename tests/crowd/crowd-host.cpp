#include "tests/crowd/crowd-host.h"

#include <doctest/doctest.h>
#include <kj/debug.h>
#include <stdlib.h>
#include <sys/resource.h>

#include <filesystem>
#include <iterator>

namespace postern::test {

namespace {

// A thousand VMs: listener, guest's end and host's end each, and some.
constexpr rlim_t DESCRIPTORS_NEEDED = 4096;

}  // namespace

CrowdLoop::CrowdLoop(unsigned sockets) : sockets(sockets) {
  rlimit limit;
  KJ_SYSCALL(getrlimit(RLIMIT_NOFILE, &limit));
  if (limit.rlim_cur >= DESCRIPTORS_NEEDED) return;
  KJ_REQUIRE(limit.rlim_max >= DESCRIPTORS_NEEDED, "this test needs a higher hard limit of open files (ulimit -Hn)",
             limit.rlim_max, DESCRIPTORS_NEEDED);
  limit.rlim_cur = DESCRIPTORS_NEEDED;
  KJ_SYSCALL(setrlimit(RLIMIT_NOFILE, &limit));
}

void CrowdLoop::settle() {
  // KJ takes 16 events from the kernel at a time and thinks it is done when nobody waits for one of those.
  constexpr unsigned EVENTS_A_POLL = 16;
  for (unsigned i = 0; i <= sockets / EVENTS_A_POLL; ++i) scope.poll();
}

size_t descriptorsOpen() {
  std::filesystem::directory_iterator begin("/proc/self/fd");
  return static_cast<size_t>(std::distance(std::filesystem::begin(begin), std::filesystem::end(begin))) - 1;
}

CrowdHost::CrowdHost(CrowdLoop& loop, kj::Timer& timer, unsigned vmCount)
    : loop(loop),
      timer(timer),
      pool(timer),
      admission(timer),
      environment{loop.port, scratch, SessionEnvironment{timer, pool, random}} {
  for (unsigned i = 0; i < vmCount; ++i) {
    vms.add(kj::heap<Vm>(Vm{kj::str(i), folder.path(kj::str(i, ".sock")), VmKeys(random), nullptr, nullptr}));
  }
}

CrowdHost::~CrowdHost() noexcept(false) {
  close();
}

void CrowdHost::open() {
  Reception::Handler& handler = *this;
  for (auto& vm : vms) {
    auto listening = listenOn(loop.port, timer, Endpoint(UnixEndpoint{kj::str(vm->path)}));
    KJ_IF_MAYBE (error, listening.tryGet<TransportError>()) {
      KJ_FAIL_REQUIRE("cannot listen", error->text);
    }
    auto& listener = *vm->listener.emplace(kj::mv(listening.get<kj::Own<Listener>>()));
    PickVm pick = [name = vm->name.asPtr()](const PeerAddress&) -> kj::Maybe<kj::String> { return kj::str(name); };
    vm->reception = kj::heap<Reception>(listener, admission, kj::mv(pick), handler, environment);
  }
}

void CrowdHost::close() {
  for (auto& vm : vms) {
    vm->reception = nullptr;
    vm->listener = nullptr;
  }
}

unsigned CrowdHost::liveSessions() const {
  unsigned count = 0;
  for (auto& session : sessions) count += !session->isOver();
  return count;
}

uint64_t CrowdHost::rejectedFor(kj::StringPtr why) const {
  KJ_IF_MAYBE (count, reasons.find(why)) return *count;
  return 0;
}

HostKeyring& CrowdHost::keyringOf(kj::StringPtr vm) {
  return vms[strtoul(vm.cStr(), nullptr, 10)]->keys.host;
}

void CrowdHost::arrived(kj::Own<IncomingSession> guest, const PeerAddress&, kj::StringPtr) {
  sessions.add(guest->accept({}));
}

void CrowdHost::rejected(const Rejection& why, const PeerAddress&, kj::StringPtr) {
  ++rejections;
  ++reasons.findOrCreate(describe(why), [&] { return decltype(reasons)::Entry{kj::str(describe(why)), 0}; });
}

void CrowdHost::stopped(kj::Exception&& why) {
  FAIL(why.getDescription().cStr());
}

}  // namespace postern::test
