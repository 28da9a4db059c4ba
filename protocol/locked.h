#pragma once
// newLocked(): an object in memory of its own that is not swapped out, not in a core dump, and wiped when freed
// (sodium_malloc: at least 8 KiB resident each). For identities that live as long as the process; what lives only as
// long as a handshake stays in Secret<N> members, which are wiped too.

#include <kj/common.h>
#include <kj/debug.h>
#include <kj/memory.h>
#include <sodium.h>

namespace postern {

template <typename T>
class LockedDisposer final : public kj::Disposer {
 public:
  static const LockedDisposer instance;

 private:
  void disposeImpl(void* pointer) const override {
    static_cast<T*>(pointer)->~T();
    sodium_free(pointer);
  }
};
template <typename T>
const LockedDisposer<T> LockedDisposer<T>::instance;

// Throws if no memory can be had; being over the limit of locked pages (RLIMIT_MEMLOCK) is no error.
template <typename T>
kj::Own<T> newLocked(T&& value) {
  // sodium_malloc() aligns to the end of a page; a type's size is a multiple of its alignment, so its start is aligned.
  KJ_ASSERT(sodium_init() >= 0);  // sets up its allocator; does nothing the second time
  void* memory = sodium_malloc(sizeof(T));
  KJ_ASSERT(memory != nullptr, "out of memory for keys");
  return kj::Own<T>(new (memory) T(kj::mv(value)), LockedDisposer<T>::instance);
}

}  // namespace postern
