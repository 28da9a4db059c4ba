#pragma once
// UnixWorld: the World of the program itself.
//
// Ctrl-C: before a loop listens, and when it comes a second time, the process ends at once with status 130; otherwise
// whenInterrupted() resolves. A write that a slow reader holds up is cut short by it, too. One object a process.

#include <kj/async-io.h>

#include "host/cli/world.h"
#include "transport/random.h"

namespace postern::cli {

class UnixWorld final : public World {
 public:
  UnixWorld();
  ~UnixWorld() noexcept(false);
  KJ_DISALLOW_COPY(UnixWorld);

  void out(kj::StringPtr text) override;
  void error(kj::StringPtr text) override;
  bool outIsTerminal() override { return terminal; }
  bool wantsColours() override { return colours; }
  bool errorIsTerminal() override;
  size_t errorColumns() override;
  bool takesUtf8() override;
  kj::AutoCloseFd inputStream() override;
  kj::AutoCloseFd outputStream() override;
  void endOutput() override;
  kj::WaitScope& waitScope() override { return asyncIo.waitScope; }
  kj::LowLevelAsyncIoProvider& io() override { return *asyncIo.lowLevelProvider; }
  kj::UnixEventPort& eventPort() override { return asyncIo.unixEventPort; }
  kj::Timer& timer() override { return asyncIo.provider->getTimer(); }
  kj::Promise<void> whenInterrupted() override { return interrupted.addBranch(); }
  kj::Promise<client::Outcome<kj::Own<client::ControlClient>>> connectControl(kj::StringPtr path) override;
  kj::TimePoint now() override;
  Random& random() override { return systemRandom; }
  kj::String currentFolder() override;
  int currentFolderHandle() override;
  kj::String temporaryFolder() override;

 private:
  const bool terminal;
  const bool colours;
  SystemRandom systemRandom;
  kj::AsyncIoContext asyncIo;
  kj::Own<kj::AsyncInputStream> interruptPipe;
  char interruptByte = 0;
  kj::ForkedPromise<void> interrupted;
};

}  // namespace postern::cli
