#pragma once
// The heap, counted. Operator new is replaced in this program (heap-count.cpp), also for KJ's libraries; what C code
// takes from malloc is seen by the allocator's own count alone.

#include <stddef.h>

namespace postern::test {

// Bytes that operator new has given out and not got back, each block rounded up as glibc does it.
size_t heapBytes();

// All bytes that glibc's allocator has in use, to see growth that is nobody's new. Includes blocks that it keeps ready
// for the next call, so it is not exact; under a sanitizer, which has an allocator of its own, it says nothing.
size_t allocatorBytes();

}  // namespace postern::test
