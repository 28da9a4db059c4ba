#include "transport/transfer/data-block.h"

#include <kj/debug.h>

namespace postern::transfer {

namespace {

void makeData(FrameBuilder& builder, uint64_t offset) {
  builder.init<schema::Forward>().initData().setOffset(offset);
}

// The same for every offset: the message's size does not depend on it.
size_t contentAt() {
  static const size_t at = [] {
    FrameBuilder builder;
    makeData(builder, 0);
    KJ_ASSERT(builder.bytes(DATA_BYTES) <= MAX_BULK_DATA_BYTES);
    return RECORD_HEADROOM + builder.contentOffset();
  }();
  return at;
}

}  // namespace

kj::ArrayPtr<kj::byte> contentSpace(kj::Array<kj::byte>& block) {
  return block.slice(contentAt(), contentAt() + DATA_BYTES);
}

size_t closeDataFrame(kj::Array<kj::byte>& block, FrameBuilder& builder, uint64_t offset, size_t bytes) {
  makeData(builder, offset);
  return builder.close(block.slice(RECORD_HEADROOM, RECORD_HEADROOM + MAX_BULK_DATA_BYTES), bytes);
}

}  // namespace postern::transfer
