#pragma once
// World: what postern's commands reach of the machine. The program has one (unix-world.h), each test its own. All on
// one loop.

#include <kj/async-io.h>
#include <kj/async-unix.h>
#include <kj/io.h>
#include <kj/string.h>
#include <kj/time.h>

#include "host/client/control-client.h"
#include "protocol/random.h"

namespace postern::cli {

class World {
 public:
  virtual ~World() noexcept(false) {}

  // Standard output and error, at once and whole. A reader that has gone ends the program.
  virtual void out(kj::StringPtr text) = 0;
  virtual void error(kj::StringPtr text) = 0;
  virtual bool outIsTerminal() = 0;
  virtual bool wantsColours() = 0;
  // For a line that is drawn again and again.
  virtual bool errorIsTerminal() = 0;
  virtual size_t errorColumns() = 0;
  // Whether a terminal shows UTF-8 as what it is.
  virtual bool takesUtf8() = 0;
  // Standard input and output as streams of bytes.
  virtual kj::AutoCloseFd inputStream() = 0;
  virtual kj::AutoCloseFd outputStream() = 0;
  // Whoever reads standard output sees its end, though the program goes on. The stream is closed by whoever has it.
  virtual void endOutput() = 0;

  virtual kj::WaitScope& waitScope() = 0;
  virtual kj::LowLevelAsyncIoProvider& io() = 0;
  virtual kj::UnixEventPort& eventPort() = 0;
  virtual kj::Timer& timer() = 0;
  // Resolves at the user's first Ctrl-C, for everybody who has asked.
  virtual kj::Promise<void> whenInterrupted() = 0;

  virtual kj::Promise<client::Outcome<kj::Own<client::ControlClient>>> connectControl(kj::StringPtr path) = 0;

  virtual kj::TimePoint now() = 0;  // CLOCK_MONOTONIC, to the nanosecond
  virtual Random& random() = 0;
  virtual kj::String currentFolder() = 0;  // absolute
  // For openat(): what relative paths of files are relative to.
  virtual int currentFolderHandle() = 0;
  virtual kj::String temporaryFolder() = 0;
};

}  // namespace postern::cli
