// postern: the command line of Postern.

#include <unistd.h>

#include "host/cli/postern.h"
#include "host/cli/unix-world.h"
#include "protocol/limits.h"

int main(int argc, char** argv) {
  postern::cli::UnixWorld world;
  world.waitScope().setBusyPollInterval(postern::limits::BUSY_POLL_INTERVAL);
  auto words = kj::heapArrayBuilder<kj::StringPtr>(static_cast<size_t>(argc > 0 ? argc - 1 : 0));
  for (int i = 1; i < argc; ++i) words.add(argv[i]);
  return static_cast<int>(postern::cli::runPostern(world, words.finish()));
}
