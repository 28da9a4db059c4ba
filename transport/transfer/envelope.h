#pragma once
// Envelopes: a frame between the two machines has a Forward or a Backward at its root; the same frame between an opener
// and its mover has it inside a ToMover or a ToOpener. In Cap'n Proto's encoding that is a root pointer and the outer
// struct's data in front of a message whose words stay as they are, since pointers are relative: so a mover puts
// envelopes on and takes them off without making any message anew.
//
// An opener's messages are taken as MallocMessageBuilder lays them out: the root's struct first, in its full size.
// Others have no envelope that could be taken off, and are a breach.

#include <kj/array.h>

#include "protocol/transfer/frame.h"

namespace postern::transfer {

enum class Envelope : uint8_t { FORWARD, BACKWARD };

// The inside of a whole frame with a ToMover, if it is of this kind: a frame of its own, at the end of the same bytes,
// of which 8 are overwritten. Null: it is something else.
kj::Maybe<kj::ArrayPtr<kj::byte>> takeOut(kj::ArrayPtr<kj::byte> frame, Envelope kind);

// The message of a whole frame that lies at words.
kj::ArrayPtr<const capnp::word> messageOf(kj::ArrayPtr<const kj::byte> frame);

// A frame that is made from `frame`, inside a ToOpener, is this much longer.
size_t envelopeBytes();
// Writes it; `out` has room for all of it. False: the message becomes longer than MAX_MESSAGE_BYTES.
[[nodiscard]] bool putIn(kj::ArrayPtr<const kj::byte> frame, Envelope kind, kj::ArrayPtr<kj::byte> out);

}  // namespace postern::transfer
