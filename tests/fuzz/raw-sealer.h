#pragma once
// RawSealer: a peer that has a session's key and seals whatever it likes with it, records or not. Written from the
// description of records (record.h, record-cipher.h), not with their code.

#include <kj/array.h>
#include <stdint.h>

#include "protocol/frame.h"
#include "protocol/secret.h"

namespace postern::fuzz {

class RawSealer {
 public:
  RawSealer(Secret<32> key, LinkTag tag) : key(kj::mv(key)), tag(tag) {}

  // The frame. `inner` is at most MAX_FRAME_BODY_BYTES less a tag.
  kj::Array<kj::byte> seal(kj::ArrayPtr<const kj::byte> inner);
  void rekey();

 private:
  Secret<32> key;
  LinkTag tag;
  uint64_t nonce = 0;
};

}  // namespace postern::fuzz
