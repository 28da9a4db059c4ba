#pragma once
// A data frame in the block that it is sent from: the file is read to where its bytes belong, header and message are
// written in front of them afterwards, and the record is sealed in place.

#include "protocol/bulk-channel.h"
#include "protocol/transfer/frame.h"

namespace postern::transfer {

// Where the content lies: DATA_BYTES of the block's space.
kj::ArrayPtr<kj::byte> contentSpace(kj::Array<kj::byte>& block);
// Makes the frame around `bytes` of content. How long it is, from the beginning of the block's space.
size_t closeDataFrame(kj::Array<kj::byte>& block, FrameBuilder& builder, uint64_t offset, size_t bytes);

}  // namespace postern::transfer
