#include "guest-agent/agent/memory.h"

#include <link.h>
#include <malloc.h>
#include <stdint.h>
#include <sys/mman.h>
#include <unistd.h>

namespace postern::guest {

namespace {

// Not writable, so never changed since it was mapped: the loader relocates segments that are writable to begin with.
int releaseClean(struct dl_phdr_info* object, size_t, void*) {
  const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
  for (unsigned i = 0; i < object->dlpi_phnum; ++i) {
    auto& segment = object->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_W) != 0) continue;
    auto begin = (object->dlpi_addr + segment.p_vaddr) & ~(page - 1);
    auto end = object->dlpi_addr + segment.p_vaddr + segment.p_memsz;
    // NOLINTNEXTLINE(performance-no-int-to-ptr): the loader gives addresses as numbers
    madvise(reinterpret_cast<void*>(begin), end - begin, MADV_DONTNEED);
  }
  return 0;
}

}  // namespace

void tuneMemory() {
  mallopt(M_ARENA_MAX, 1);
  // What is free at the heap's top goes back above the first number, and the heap grows by the second, of which only
  // what is touched is resident. Closer together they cost a system call and fresh pages every few records of a file
  // copy.
  mallopt(M_TRIM_THRESHOLD, 512 << 10);
  mallopt(M_TOP_PAD, 128 << 10);
  mallopt(M_MMAP_THRESHOLD, 64 << 10);
}

void releaseStartupPages() {
  dl_iterate_phdr(&releaseClean, nullptr);
}

}  // namespace postern::guest
