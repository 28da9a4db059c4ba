#include "protocol/block-pool.h"

#include <kj/debug.h>
#include <stdlib.h>

#include "protocol/limits.h"

namespace postern {

BlockPool::~BlockPool() noexcept(false) {
  for (auto* block : idle) free(block);
  lender->pool = nullptr;
  if (lender->out == 0) delete lender;
}

kj::byte* BlockPool::takeBlock() {
  ++lender->out;
  lastUse = timer.now();
  if (!idle.empty()) {
    auto* block = idle.back();
    idle.removeLast();
    return block;
  }
  void* block = malloc(BLOCK_BYTES);
  KJ_ASSERT(block != nullptr, "out of memory");
  return static_cast<kj::byte*>(block);
}

kj::Array<kj::byte> BlockPool::take() {
  return kj::Array<kj::byte>(takeBlock(), BLOCK_BYTES, *lender);
}

kj::Array<kj::byte> BlockPool::take(size_t size) {
  KJ_IREQUIRE(size <= BLOCK_BYTES);
  if (size <= SMALL_BYTES) return kj::heapArray<kj::byte>(size);
  return kj::Array<kj::byte>(takeBlock(), size, *lender);
}

void BlockPool::Lender::disposeImpl(void* firstElement, size_t, size_t, size_t, void (*)(void*)) const {
  // kj's disposers are const so that they can be shared; this one is one pool's.
  auto* self = const_cast<Lender*>(this);
  --self->out;
  if (pool != nullptr) {
    pool->giveBack(static_cast<kj::byte*>(firstElement));
  } else {
    free(firstElement);
    if (out == 0) delete self;
  }
}

void BlockPool::giveBack(kj::byte* block) {
  lastUse = timer.now();
  if (idle.size() >= limits::MAX_IDLE_BLOCKS) {
    free(block);
    return;
  }
  idle.add(block);
  if (trimming) return;
  trimming = true;
  trimTask = trimWhenIdle().eagerlyEvaluate(nullptr);
}

kj::Promise<void> BlockPool::trimWhenIdle() {
  return timer.atTime(lastUse + limits::BUFFER_IDLE).then([this]() -> kj::Promise<void> {
    if (timer.now() < lastUse + limits::BUFFER_IDLE) return trimWhenIdle();
    for (auto* block : idle) free(block);
    idle.clear();
    trimming = false;
    return kj::READY_NOW;
  });
}

}  // namespace postern
