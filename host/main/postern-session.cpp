// postern-session: one VM's session process. Started by posternd, which passes two descriptors: a listening socket, on
// which it reaches this process, and the VM's state file. Enters its sandbox before it reads anything of anyone's.

#include <kj/async-io.h>
#include <kj/debug.h>
#include <malloc.h>
#include <signal.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>

#include "host/log/log.h"
#include "host/session/sandbox.h"
#include "host/session/session-process.h"
#include "protocol/limits.h"
#include "transport/random.h"

namespace postern::host {
namespace {

struct Options {
  std::string vm;
  std::string uuid;
  int socket = -1;
  int state = -1;
};

int fail(kj::StringPtr text) {
  logEvent(LogLevel::ERROR, "start-failed", text);
  return 1;
}

int serve(const Options& options) {
  VmId vm;
  KJ_IF_MAYBE (id, parseVmId(kj::arrayPtr(options.uuid.data(), options.uuid.size()))) {
    vm = *id;
  } else {
    return fail("--uuid is not a uuid");
  }
  auto file = StateFile::open(kj::AutoCloseFd(options.state), geteuid());
  if (file.is<StateFileError>()) return fail(kj::str("the VM's state file ", describe(file.get<StateFileError>())));

  auto io = kj::setupAsyncIo();
  io.waitScope.setBusyPollInterval(limits::BUSY_POLL_INTERVAL);
  auto& timer = io.unixEventPort.getTimer();
  SystemRandom random;
  BlockPool pool(timer);
  ReadScratch scratch;
  auto& monotonic = kj::systemCoarseMonotonicClock();
  auto opened = VmKeys::open(kj::mv(file.get<StateFile>()), vm, {kj::systemCoarseCalendarClock(), monotonic}, random);
  if (opened.is<kj::StringPtr>()) return fail(kj::str("the VM's state file ", opened.get<kj::StringPtr>()));
  auto& keys = *opened.get<kj::Own<VmKeys>>();
  SessionProcess process(options.vm.c_str(), keys, {io.unixEventPort, scratch, {timer, pool, random}},
                         *io.lowLevelProvider, kj::AutoCloseFd(options.socket));
  auto terminated = io.unixEventPort.onSignal(SIGTERM).then([&process](siginfo_t) {
    process.end();
    return kj::Promise<void>(kj::NEVER_DONE);
  });
  if (enterSessionSandbox() == LandlockState::NOT_IN_KERNEL) {
    logEvent(LogLevel::WARNING, "no-landlock", "the kernel has no Landlock; system calls are filtered all the same");
  }
  process.run().exclusiveJoin(kj::mv(terminated)).wait(io.waitScope);
  return 0;
}

}  // namespace
}  // namespace postern::host

int main(int argc, char** argv) {
  using namespace postern::host;
  // Few and small: the memory of a thousand of these counts.
  mallopt(M_ARENA_MAX, 1);
  mallopt(M_TRIM_THRESHOLD, 64 << 10);
  // Blocks of records apart from the heap, which they would leave full of holes.
  mallopt(M_MMAP_THRESHOLD, 64 << 10);
  signal(SIGPIPE, SIG_IGN);
  signal(SIGHUP, SIG_IGN);
  signal(SIGINT, SIG_IGN);  // Ctrl-C on posternd's terminal is posternd's
  kj::UnixEventPort::captureSignal(SIGTERM);

  Options options;
  std::string root, config;
  CLI::App app("One VM's session with its guest. Started by posternd; not for use by hand.", "postern-session");
  app.set_version_flag("--version", POSTERN_VERSION);
  app.add_option("--root", root, "Accepted like everywhere; nothing is read from there");
  app.add_option("--config", config, "Accepted like everywhere; posternd passes what counts");
  app.add_option("--vm", options.vm, "Name of the VM")->required();
  app.add_option("--uuid", options.uuid, "Its uuid")->required();
  app.add_option("--socket-fd", options.socket, "Descriptor of the listening socket for posternd")->required();
  app.add_option("--state-fd", options.state, "Descriptor of the VM's state file")->required();
  CLI11_PARSE(app, argc, argv);
  // Whatever else it was started with is not its business, and may be another VM's. Before anything is opened.
  auto highest = static_cast<unsigned>(std::max({options.socket, options.state, STDERR_FILENO}));
  (void)close_range(highest + 1, ~0u, 0);
  setUpLog("postern-session");
  int status = 1;
  KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { status = serve(options); })) {
    return fail(exception->getDescription());
  }
  return status;
}
