#include "host/board/board-writer.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/io.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <boost/interprocess/file_mapping.hpp>

#include "host/board/board-file.h"
#include "host/board/machine.h"
#include "transport/random.h"

namespace postern::host {

namespace interprocess = boost::interprocess;

namespace {

// A new file with all its blocks: writing to a hole of a full file system would be a SIGBUS later.
void makeFile(kj::StringPtr path, uint32_t capacity, kj::Maybe<gid_t> group) {
  if (unlink(path.cStr()) != 0 && errno != ENOENT) KJ_FAIL_SYSCALL("unlink(status board)", errno, path);
  int fd;
  KJ_SYSCALL(fd = open(path.cStr(), O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600), path);
  kj::AutoCloseFd file(fd);
  KJ_ON_SCOPE_FAILURE(unlink(path.cStr()));
  int error = posix_fallocate(file, 0, off_t(boardBytes(capacity)));
  if (error != 0) KJ_FAIL_SYSCALL("posix_fallocate(status board)", error, path);
  KJ_IF_MAYBE (gid, group) KJ_SYSCALL(fchown(file, uid_t(-1), *gid), path);
  KJ_SYSCALL(fchmod(file, 0640), path);  // whatever the umask says; after the group is right
}

interprocess::mapped_region mapNew(kj::StringPtr path, uint32_t capacity) {
  try {
    interprocess::file_mapping mapping(path.cStr(), interprocess::read_write);
    return interprocess::mapped_region(mapping, interprocess::read_write, 0, boardBytes(capacity));
  } catch (const interprocess::interprocess_exception& e) {
    KJ_FAIL_SYSCALL("mmap(status board)", e.get_native_error(), path);
  }
}

void fillHeader(board::Header& header, uint32_t capacity, kj::TimePoint now) {
  kj::ctor(header);
  memcpy(header.magic, board::MAGIC, sizeof(board::MAGIC));
  header.layoutVersion = board::LAYOUT_VERSION;
  header.headerBytes = board::HEADER_BYTES;
  header.slotBytes = board::SLOT_BYTES;
  header.capacity = capacity;
  header.byteOrder = board::BYTE_ORDER_MARK;
  header.writerPid = uint32_t(getpid());
  header.writerStart = ownStartTicks();
  auto boot = machineBootId();
  memcpy(header.hostBoot, boot.data(), sizeof(header.hostBoot));
  SystemRandom().fill(header.instance);
  header.writerStamp.store(toMonotonicNs(now), std::memory_order_relaxed);
}

void retire(interprocess::mapped_region& region, board::Retired how) {
  auto& header = *static_cast<board::Header*>(region.get_address());
  uint32_t live = board::LIVE;
  if (how == board::REPLACED) {
    header.retired.store(how, std::memory_order_release);
  } else {
    header.retired.compare_exchange_strong(live, how, std::memory_order_release, std::memory_order_relaxed);
  }
}

}  // namespace

BoardWriter::BoardWriter(kj::StringPtr path, kj::TimePoint now, uint32_t capacity, kj::Maybe<gid_t> group)
    : slotCount(capacity), inUse(kj::heapArray<bool>(capacity)) {
  KJ_REQUIRE(capacity > 0 && capacity <= board::MAX_CAPACITY, "not a capacity of a status board", capacity);
  for (bool& slot : inUse) slot = false;
  auto fresh = kj::str(path, ".new");
  makeFile(fresh, capacity, group);
  KJ_ON_SCOPE_FAILURE(unlink(fresh.cStr()));
  region = mapNew(fresh, capacity);
  fillHeader(header(), capacity, now);
  auto older = mapBoard(path, interprocess::read_write);
  KJ_SYSCALL(rename(fresh.cStr(), path.cStr()), path);
  if (older.is<MappedBoard>()) retire(older.get<MappedBoard>().region, board::REPLACED);
}

BoardWriter::~BoardWriter() noexcept(false) {
  retire(region, board::ENDED);
}

kj::Maybe<uint32_t> BoardWriter::add(const BoardVm& vm) {
  uint32_t slot;
  if (!freed.empty()) {
    slot = freed.back();
    freed.removeLast();
  } else if (extent < slotCount) {
    slot = extent++;
  } else {
    return nullptr;
  }
  inUse[slot] = true;
  write(slot, encodeSlot(vm));
  header().extent.store(extent, std::memory_order_release);
  header().count.store(++used, std::memory_order_release);
  return slot;
}

void BoardWriter::update(uint32_t slot, const BoardVm& vm) {
  KJ_REQUIRE(slot < slotCount && inUse[slot], "no VM has this slot", slot);
  write(slot, encodeSlot(vm));
}

void BoardWriter::updatePort(uint32_t slot, const BoardPort& port) {
  KJ_REQUIRE(slot < slotCount && inUse[slot], "no VM has this slot", slot);
  writePort(slot, encodePort(port));
}

void BoardWriter::remove(uint32_t slot) {
  KJ_REQUIRE(slot < slotCount && inUse[slot], "no VM has this slot", slot);
  inUse[slot] = false;
  write(slot, board::Slot{});
  writePort(slot, PortWords{});
  freed.add(slot);
  header().count.store(--used, std::memory_order_release);
}

void BoardWriter::beat(kj::TimePoint now) {
  header().writerStamp.store(toMonotonicNs(now), std::memory_order_release);
  header().writerBeats.fetch_add(1, std::memory_order_relaxed);
}

// Every word is a release store, so that a reader which sees one of them sees the odd lock before it. On x86 that is an
// ordinary store; a fence would do, but ThreadSanitizer does not understand fences.
void BoardWriter::write(uint32_t slot, const board::Slot& content) {
  uint64_t words[board::SLOT_WORDS];
  memcpy(words, &content, sizeof(words));
  auto& mapped = slotAt(slot);
  auto lock = mapped.lock.load(std::memory_order_relaxed);
  mapped.lock.store(lock + 1, std::memory_order_relaxed);
  for (size_t i = 0; i < board::SLOT_WORDS; ++i) mapped.words[i].store(words[i], std::memory_order_release);
  mapped.lock.store(lock + 2, std::memory_order_release);
}

void BoardWriter::writePort(uint32_t slot, const PortWords& words) {
  auto& mapped = slotAt(slot);
  for (size_t i = 0; i < words.size(); ++i) mapped.port[i].store(words[i], std::memory_order_release);
}

board::Header& BoardWriter::header() {
  return *static_cast<board::Header*>(region.get_address());
}

board::MappedSlot& BoardWriter::slotAt(uint32_t index) {
  auto base = static_cast<kj::byte*>(region.get_address()) + board::HEADER_BYTES;
  return reinterpret_cast<board::MappedSlot*>(base)[index];
}

}  // namespace postern::host
