#pragma once
// BoardWriter: the one who writes the status board (layout.h). Guarantees:
//  - the file appears under its path whole, with mode 0640 whatever the umask is, and replaces an older one atomically;
//    readers of the older one see `retired`;
//  - its memory is allocated when it is made, so that no later write meets a full file system;
//  - readers never wait for it and it never waits for a reader: it takes no lock that anybody else could hold;
//  - one that is killed at any moment leaves at worst one slot that readers report as unreadable; the next writer takes
//    the path over.
//
// Owned by posternd, on its loop. That there is one writer is the owner's business (posternd's lock file); two would
// take the path from each other and neither would harm a reader.

#include <kj/array.h>
#include <kj/common.h>
#include <kj/map.h>
#include <kj/string.h>
#include <kj/time.h>
#include <kj/vector.h>
#include <sys/types.h>

#include <boost/interprocess/mapped_region.hpp>

#include "host/board/board-vm.h"

namespace postern::host {

class BoardWriter {
 public:
  static constexpr uint32_t DEFAULT_CAPACITY = 4096;

  // Makes the board at `path`; its folder must be there. Throws (a full disk, a read-only folder, `group` is none of
  // ours) and then leaves an older board as it was. `group`: who may read it; by default the process's.
  BoardWriter(kj::StringPtr path, kj::TimePoint now, uint32_t capacity = DEFAULT_CAPACITY,
              kj::Maybe<gid_t> group = nullptr);
  // Marks the board as ended and leaves the file, so that a reader can say what there was.
  ~BoardWriter() noexcept(false);
  KJ_DISALLOW_COPY(BoardWriter);

  // Index of the VM's slot. Null if the board is full.
  [[nodiscard]] kj::Maybe<uint32_t> add(const BoardVm& vm);
  void update(uint32_t slot, const BoardVm& vm);
  // Its port; until then all is 0.
  void updatePort(uint32_t slot, const BoardPort& port);
  void remove(uint32_t slot);

  // Says that the writer lives. The owner calls it at least every board::BEAT_NS.
  void beat(kj::TimePoint now);

  uint32_t count() const { return used; }
  uint32_t capacity() const { return slotCount; }

 private:
  void write(uint32_t slot, const board::Slot& content);
  void writePort(uint32_t slot, const PortWords& words);
  board::Header& header();
  board::MappedSlot& slotAt(uint32_t index);

  const uint32_t slotCount;
  boost::interprocess::mapped_region region;
  kj::Vector<uint32_t> freed;  // below `extent`, to be used again
  kj::Array<bool> inUse;
  uint32_t extent = 0;
  uint32_t used = 0;
};

}  // namespace postern::host
