#include "host/board/board-reader.h"

#include <sched.h>
#include <string.h>
#include <unistd.h>

#include "host/board/board-file.h"
#include "host/board/machine.h"

namespace postern::host {

namespace {

// A write takes well under a microsecond. After the first tries the writer has probably lost its processor in the
// middle of one: first this thread offers its own, then it sleeps a millisecond a try, long enough for a writer on a
// busy machine to come round. After that the writer is dead or stopped.
constexpr unsigned SPINS = 100;
constexpr unsigned YIELDS = 100;
constexpr unsigned SLEEPS = 50;
constexpr useconds_t SLEEP_US = 1000;
constexpr unsigned TRIES = SPINS + YIELDS + SLEEPS;
// Of all slots of a snapshot together, beyond the first of each: one writer leaves one slot half-written, so a board
// with many is no board of ours and need not be waited for.
constexpr unsigned TRIES_IN_ALL = 4 * TRIES;

void waitBefore(unsigned attempt) {
  if (attempt >= SPINS + YIELDS) {
    usleep(SLEEP_US);
  } else if (attempt >= SPINS) {
    sched_yield();
  }
}

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
        read->port = decodePort(copyPort(index));
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
  auto& slot = slotAt(index);
  uint64_t words[board::SLOT_WORDS];
  for (unsigned attempt = 0; attempt < TRIES; ++attempt) {
    if (attempt > 0 && tries-- == 0) {
      tries = 0;
      return false;
    }
    waitBefore(attempt);
    auto before = slot.lock.load(std::memory_order_acquire);
    if (before % 2 != 0) continue;
    for (size_t i = 0; i < board::SLOT_WORDS; ++i) words[i] = slot.words[i].load(std::memory_order_acquire);
    if (slot.lock.load(std::memory_order_relaxed) != before) continue;
    memcpy(&out, words, sizeof(out));
    return true;
  }
  return false;
}

PortWords BoardReader::copyPort(uint32_t index) const {
  PortWords words;
  for (size_t i = 0; i < words.size(); ++i) words[i] = slotAt(index).port[i].load(std::memory_order_acquire);
  return words;
}

const board::MappedSlot& BoardReader::slotAt(uint32_t index) const {
  auto base = static_cast<const kj::byte*>(region.get_address()) + board::HEADER_BYTES;
  return reinterpret_cast<const board::MappedSlot*>(base)[index];
}

const board::Header& BoardReader::header() const {
  return *static_cast<const board::Header*>(region.get_address());
}

}  // namespace postern::host
