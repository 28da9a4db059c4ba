#pragma once
// BoardReader: the status board as anybody who may read its file sees it, without a call to posternd. Guarantees:
//  - the mapping is read-only, and nothing that it does can delay the writer or another reader;
//  - what it gives out is a copy that no writer can change any more, each VM as it was at one moment, but for the
//    counters of its port, of which each is of its own;
//  - it trusts nothing: header and sizes are checked once at open(), indices are read once, texts come out printable;
//  - a slot that stays half-written (its writer was killed) costs a bounded number of tries and is counted.
// The file is not truncated by any writer, so a mapping that was checked stays readable; whoever could truncate it is
// posternd's user or root.
// For any thread; no object is shared between threads.

#include <kj/common.h>
#include <kj/memory.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <kj/time.h>
#include <kj/vector.h>

#include <boost/interprocess/mapped_region.hpp>

#include "host/board/board-vm.h"

namespace postern::host {

enum class BoardWriterState {
  ALIVE,
  SILENT,        // its stamp is older than board::STALE_NS: dead or hanging
  ENDED,         // it stopped in good order
  REPLACED,      // a new board has the path: open it again
  EARLIER_BOOT,  // the machine has been restarted since
};
// One line for a person: "posternd has not been seen for a while; is it running?".
kj::StringPtr describe(BoardWriterState state);

struct BoardSnapshot {
  BoardWriterState writer = BoardWriterState::ALIVE;
  kj::Duration writerAge = 0 * kj::SECONDS;  // since its last sign of life; what the VMs' entries say is as old as that
  uint32_t writerPid = 0;
  kj::Vector<BoardVm> vms;  // in the board's order
  unsigned unreadable = 0;  // slots that stayed half-written, or say what this program does not understand
};

class BoardReader {
 public:
  // The board, or one printable line for a person that names the path and says what to do.
  static kj::OneOf<kj::Own<BoardReader>, kj::String> open(kj::StringPtr path);

  BoardReader(boost::interprocess::mapped_region region, uint32_t capacity);  // open()'s
  KJ_DISALLOW_COPY(BoardReader);

  // `now` is CLOCK_MONOTONIC's, as kj::systemPreciseMonotonicClock() gives it.
  BoardSnapshot snapshot(kj::TimePoint now) const;

  // For tests: where it is mapped.
  const void* mapped() const { return region.get_address(); }

 private:
  BoardWriterState writerState(uint64_t age) const;
  bool copySlot(uint32_t index, board::Slot& out, unsigned& tries) const;
  PortWords copyPort(uint32_t index) const;
  const board::MappedSlot& slotAt(uint32_t index) const;
  const board::Header& header() const;

  boost::interprocess::mapped_region region;
  const uint32_t capacity;
  const bool earlierBoot;
};

}  // namespace postern::host
