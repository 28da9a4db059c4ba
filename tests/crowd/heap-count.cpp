#include "tests/crowd/heap-count.h"

#include <malloc.h>
#include <stddef.h>
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <new>

namespace {

std::atomic<size_t> inUse = 0;

// In front of each block: its size. As long as the alignment that operator new promises.
struct alignas(alignof(max_align_t)) Header {
  size_t size;
};

// What glibc's malloc takes for a block of this size, its own word of bookkeeping included.
size_t blockBytes(size_t size) {
  constexpr size_t UNIT = 16;
  constexpr size_t SMALLEST = 32;
  return std::max(SMALLEST, (size + sizeof(size_t) + UNIT - 1) / UNIT * UNIT);
}

void release(void* memory) noexcept {
  if (memory == nullptr) return;
  auto* header = static_cast<Header*>(memory) - 1;
  inUse -= blockBytes(header->size);
  free(header);
}

}  // namespace

void* operator new(size_t size) {
  auto* header = static_cast<Header*>(malloc(sizeof(Header) + size));
  if (header == nullptr) abort();
  header->size = size;
  inUse += blockBytes(size);
  return header + 1;
}
void operator delete(void* memory) noexcept {
  release(memory);
}
void operator delete(void* memory, size_t) noexcept {
  release(memory);
}

namespace postern::test {

size_t heapBytes() {
  return inUse;
}

size_t allocatorBytes() {
  malloc_trim(0);
  auto info = mallinfo2();
  return info.uordblks + info.hblkhd;
}

}  // namespace postern::test
