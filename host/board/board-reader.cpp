#include "host/board/board-reader.h"

#include <sched.h>
#include <string.h>

#include "host/board/board-file.h"
#include "host/board/machine.h"

namespace postern::host {

namespace {

// A write takes well under a microsecond. After the first tries the writer's time slice has probably ended in the
// middle of one, so this thread gives up its own; after all of them the writer is dead or stopped.
constexpr unsigned QUICK_TRIES = 100;
constexpr unsigned TRIES = 1000;
// Of all slots of a snapshot together, beyond the first of each: one writer leaves one slot half-written, so a board
// with many is no board of ours and need not be waited for.
constexpr unsigned TRIES_IN_ALL = 8 * TRIES;

bool isOfEarlierBoot(const board::Header& header) {
  auto boot = machineBootId();
  return boot != decltype(boot){} && memcmp(header.hostBoot, boot.data(), boot.size()) != 0;
}

}  // namespace

kj::StringPtr describe(BoardWriterState state) {
  switch (state) {
    case BoardWriterState::ALIVE:
      return "posternd is running";
    case BoardWriterState::SILENT:
      return "posternd has written nothing for some time; is it running, or does it hang?";
    case BoardWriterState::ENDED:
      return "posternd has stopped; this is what was known then";
    case BoardWriterState::REPLACED:
      return "another posternd writes another board by now; open it again";
    case BoardWriterState::EARLIER_BOOT:
      return "the machine was restarted and posternd was not; this is from before";
  }
  return "unknown";
}

kj::OneOf<kj::Own<BoardReader>, kj::String> BoardReader::open(kj::StringPtr path) {
  auto mapped = mapBoard(path, boost::interprocess::read_only);
  if (mapped.is<kj::String>()) return kj::mv(mapped.get<kj::String>());
  auto& found = mapped.get<MappedBoard>();
  return kj::heap<BoardReader>(kj::mv(found.region), found.capacity);
}

BoardReader::BoardReader(boost::interprocess::mapped_region mappedRegion, uint32_t capacity)
    : region(kj::mv(mappedRegion)), capacity(capacity), earlierBoot(isOfEarlierBoot(header())) {}

BoardSnapshot BoardReader::snapshot(kj::TimePoint now) const {
  BoardSnapshot result;
  auto nowNs = toMonotonicNs(now);
  auto stamp = header().writerStamp.load(std::memory_order_acquire);
  auto age = nowNs > stamp ? nowNs - stamp : 0;
  result.writer = writerState(age);
  result.writerAge = fromMonotonicNs(age) - kj::origin<kj::TimePoint>();
  result.writerPid = header().writerPid;
  auto extent = kj::min(header().extent.load(std::memory_order_acquire), capacity);
  result.vms.reserve(extent);
  unsigned tries = TRIES_IN_ALL;
  for (uint32_t index = 0; index < extent; ++index) {
    board::Slot untrusted;
    if (!copySlot(index, untrusted, tries)) {
      ++result.unreadable;
    } else if (untrusted.used != 0) {
      auto vm = decodeSlot(untrusted);
      KJ_IF_MAYBE (read, vm) {
        result.vms.add(kj::mv(*read));
      } else {
        ++result.unreadable;
      }
    }
  }
  return result;
}

BoardWriterState BoardReader::writerState(uint64_t age) const {
  if (earlierBoot) return BoardWriterState::EARLIER_BOOT;
  switch (header().retired.load(std::memory_order_acquire)) {
    case board::LIVE:
      return age < board::STALE_NS ? BoardWriterState::ALIVE : BoardWriterState::SILENT;
    case board::ENDED:
      return BoardWriterState::ENDED;
    default:
      return BoardWriterState::REPLACED;
  }
}

bool BoardReader::copySlot(uint32_t index, board::Slot& out, unsigned& tries) const {
  auto base = static_cast<const kj::byte*>(region.get_address()) + board::HEADER_BYTES;
  auto& slot = reinterpret_cast<const board::MappedSlot*>(base)[index];
  uint64_t words[board::SLOT_WORDS];
  for (unsigned attempt = 0; attempt < TRIES; ++attempt) {
    if (attempt > 0 && tries-- == 0) {
      tries = 0;
      return false;
    }
    if (attempt >= QUICK_TRIES) sched_yield();
    auto before = slot.lock.load(std::memory_order_acquire);
    if (before % 2 != 0) continue;
    for (size_t i = 0; i < board::SLOT_WORDS; ++i) words[i] = slot.words[i].load(std::memory_order_acquire);
    if (slot.lock.load(std::memory_order_relaxed) != before) continue;
    memcpy(&out, words, sizeof(out));
    return true;
  }
  return false;
}

const board::Header& BoardReader::header() const {
  return *static_cast<const board::Header*>(region.get_address());
}

}  // namespace postern::host
