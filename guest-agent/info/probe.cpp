#include "guest-agent/info/probe.h"

#include <capnp/message.h>
#include <capnp/serialize.h>
#include <kj/debug.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include "guest-agent/info/probes.h"
#include "guest-agent/power/inhibitors.h"

namespace postern::guest {

namespace {

constexpr int USAGE = 64;  // EX_USAGE

int deliver(void (*find)(schema::Info::Builder)) {
  capnp::MallocMessageBuilder message;
  find(message.initRoot<schema::Info>());
  auto bytes = capnp::messageToFlatArray(message);
  // Above that the broker would cut it, and cut it is worth nothing.
  if (bytes.asBytes().size() > MAX_CHILD_OUTPUT) return 1;
  kj::FdOutputStream(STDOUT_FILENO).write(bytes.asBytes().begin(), bytes.asBytes().size());
  return 0;
}

}  // namespace

kj::StringPtr probeName(Probe probe) {
  switch (probe) {
    case Probe::OS:
      return "os"_kj;
    case Probe::NETWORK:
      return "network"_kj;
    case Probe::FILESYSTEMS:
      return "filesystems"_kj;
    case Probe::USERS:
      return "users"_kj;
  }
  KJ_UNREACHABLE;
}

int runProbe(kj::StringPtr name) {
  int status = USAGE;
  auto failure = kj::runCatchingExceptions([&] {
    if (name == "os") status = deliver(findOs);
    if (name == "network") status = deliver(findNetwork);
    if (name == "filesystems") status = deliver(findFilesystems);
    if (name == "users") status = deliver(findUsers);
    if (name == "inhibitors") status = writeInhibitors();
  });
  if (failure == nullptr) return status;
  fprintf(stderr, "postern-agent: probe %s: %s\n", name.cStr(), KJ_ASSERT_NONNULL(failure).getDescription().cStr());
  return 1;
}

ChildDescription probeChild(kj::ArrayPtr<const kj::String> command, kj::StringPtr name, kj::Maybe<Identity> identity,
                            kj::Duration limit) {
  kj::Vector<kj::String> argv;
  for (auto& part : command) argv.add(kj::str(part));
  argv.add(kj::str(name));
  return {argv.releaseAsArray(), kj::arr(kj::str(CHILD_PATH), kj::str("LC_ALL=C")), identity, kj::String(), limit};
}

}  // namespace postern::guest
