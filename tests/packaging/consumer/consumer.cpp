// Lists the VMs of this host in two ways: by asking posternd, and from the status board.

#include <stdio.h>

#include "host/board/board-reader.h"
#include "host/board/layout.h"
#include "host/client/control-client.h"
#include "host/paths.h"

using namespace postern;

int main() {
  auto io = kj::setupAsyncIo();
  auto& timer = io.provider->getTimer();
  host::Paths paths("");
  auto outcome = client::ControlClient::connect(*io.lowLevelProvider, timer, paths.controlSocket).wait(io.waitScope);
  if (outcome.is<client::Failure>()) {
    fprintf(stderr, "consumer: %s\n", outcome.get<client::Failure>().text.cStr());
    return 1;
  }
  auto& posternd = *outcome.get<kj::Own<client::ControlClient>>();
  auto status = posternd.control().statusRequest().send().wait(io.waitScope);
  for (auto vm : status.getVms()) printf("asked %s %s\n", vm.getName().cStr(), vm.getColour().cStr());

  auto board = host::BoardReader::open(paths.board);
  if (!board.is<kj::Own<host::BoardReader>>()) return 1;
  auto now = kj::systemPreciseMonotonicClock().now();
  auto snapshot = board.get<kj::Own<host::BoardReader>>()->snapshot(now);
  for (auto& vm : snapshot.vms) printf("read %s\n", vm.name.cStr());
  return 0;
}
