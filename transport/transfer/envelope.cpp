#include "transport/transfer/envelope.h"

#include <capnp/schema.h>
#include <kj/debug.h>
#include <string.h>

#include "protocol/wire-int.h"

namespace postern::transfer {

namespace {

constexpr size_t WORD = sizeof(capnp::word);

// What stands in front of the pointer to the inner message, of one outer struct: for each kind.
struct Prefixes {
  kj::Array<kj::byte> forward;
  kj::Array<kj::byte> backward;

  kj::ArrayPtr<const kj::byte> of(Envelope kind) const { return kind == Envelope::FORWARD ? forward : backward; }
};

template <typename Outer>
kj::Array<kj::byte> prefixOf(Envelope kind) {
  capnp::MallocMessageBuilder message;
  auto outer = message.initRoot<Outer>();
  if (kind == Envelope::FORWARD) {
    outer.initForward();
  } else {
    outer.initBackward();
  }
  auto shape = capnp::Schema::from<Outer>().getProto().getStruct();
  KJ_ASSERT(shape.getPointerCount() == 1, "the pointer is the struct's last word");
  auto segment = message.getSegmentsForOutput()[0].asBytes();
  return kj::heapArray(segment.slice(0, (1 + size_t(shape.getDataWordCount())) * WORD));
}

template <typename Outer>
const Prefixes& prefixes() {
  static const Prefixes result{prefixOf<Outer>(Envelope::FORWARD), prefixOf<Outer>(Envelope::BACKWARD)};
  return result;
}

uint32_t messageBytes(kj::ArrayPtr<const kj::byte> frame) {
  return getLittleEndian<uint32_t>(frame.begin());
}

}  // namespace

kj::Maybe<kj::ArrayPtr<kj::byte>> takeOut(kj::ArrayPtr<kj::byte> frame, Envelope kind) {
  auto prefix = prefixes<schema::ToMover>().of(kind);
  uint32_t bytes = messageBytes(frame);
  if (bytes < prefix.size() + WORD) return nullptr;
  if (memcmp(frame.begin() + FRAME_HEADER_BYTES, prefix.begin(), prefix.size()) != 0) return nullptr;
  auto inside = frame.slice(prefix.size(), frame.size());
  kj::byte contentBytes[4];
  memcpy(contentBytes, frame.begin() + 4, sizeof(contentBytes));
  putLittleEndian(uint32_t(bytes - prefix.size()), inside.begin());
  memcpy(inside.begin() + 4, contentBytes, sizeof(contentBytes));
  return inside;
}

kj::ArrayPtr<const capnp::word> messageOf(kj::ArrayPtr<const kj::byte> frame) {
  auto words = reinterpret_cast<const capnp::word*>(frame.begin() + FRAME_HEADER_BYTES);
  return kj::arrayPtr(words, messageBytes(frame) / WORD);
}

size_t envelopeBytes() {
  return prefixes<schema::ToOpener>().forward.size();
}

bool putIn(kj::ArrayPtr<const kj::byte> frame, Envelope kind, kj::ArrayPtr<kj::byte> out) {
  auto prefix = prefixes<schema::ToOpener>().of(kind);
  size_t bytes = messageBytes(frame) + prefix.size();
  if (bytes > MAX_MESSAGE_BYTES) return false;
  KJ_REQUIRE(out.size() >= frame.size() + prefix.size());
  putLittleEndian(uint32_t(bytes), out.begin());
  memcpy(out.begin() + 4, frame.begin() + 4, 4);
  auto behind = out.begin() + FRAME_HEADER_BYTES;
  memcpy(behind, prefix.begin(), prefix.size());
  memcpy(behind + prefix.size(), frame.begin() + FRAME_HEADER_BYTES, frame.size() - FRAME_HEADER_BYTES);
  return true;
}

}  // namespace postern::transfer
