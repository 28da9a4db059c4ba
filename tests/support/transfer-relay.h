#pragma once
// TransferRelay: plays both movers of a transfer between a source's opener and a destination's, without a link: what
// one says goes to the other, and the bytes of larger files are copied from descriptor to descriptor. For a thread.

#include "protocol/transfer/opener-message.h"
#include "tests/support/opener-peer.h"

namespace postern::test {

struct RelayOptions {
  uint64_t vanishAfter = UINT64_MAX;  // messages of the source, after which both movers are gone
  bool vanishInFile = false;          // in the middle of the first larger file
  bool cutSource = false;             // the first larger file is found shorter than it was announced
  bool keepFirst = false;             // the first larger file is half copied, and then said to be kept
};

class TransferRelay {
 public:
  TransferRelay(kj::AutoCloseFd source, kj::AutoCloseFd destination, RelayOptions options = {})
      : source(kj::mv(source)), destination(kj::mv(destination)), options(options) {}

  // Until both are closed.
  void run();

  uint64_t forwarded = 0;  // messages of the source
  uint64_t resumed = 0;    // files that went on from what was there
  uint64_t copied = 0;     // bytes of larger files that travelled

 private:
  OpenerPeer source;
  OpenerPeer destination;
  RelayOptions options;
  uint64_t entries = 0;

  // False: both movers are gone.
  bool fromSource(OpenerPeer::Message message);
  bool fromDestination(OpenerPeer::Message& message);
  bool largeFile(uint64_t number, uint64_t size, int content);
  transfer::Commit copyFile(uint64_t number, uint64_t size, int from, OpenerPeer::Message& opened);
  void vanish();
};

}  // namespace postern::test
