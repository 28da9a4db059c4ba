#pragma once
// RecordSealer and RecordOpener: the two directions of a session's encryption, ChaCha20-Poly1305 (RFC 8439) with a
// counter for a nonce (four zero bytes, then u64 LE), as Noise's transport messages have it.
//
// Guarantees: a nonce is never used twice under one key; records open in the order they were sealed in or not at all
// (a lost, repeated or swapped one fails); after the first failure an opener is dead, its key wiped; rekey() is Noise's
// REKEY (spec 11.3), after which nobody who takes the key learns what was sealed before it.
// Neither allocates. A key has one direction: sealing and opening keys are different types.

#include <kj/array.h>
#include <kj/one-of.h>
#include <kj/string.h>
#include <stdint.h>

#include "protocol/frame.h"
#include "protocol/record.h"
#include "protocol/secret.h"

namespace postern {

struct SealingKey {
  Secret<32> bytes;
};
struct OpeningKey {
  Secret<32> bytes;
};

class RecordSealer {
 public:
  RecordSealer(SealingKey key, LinkTag tag) : key(kj::mv(key)), tag(tag) {}

  // `buffer` is RECORD_HEADROOM bytes to be filled here, `dataBytes` of data already in place, and at least
  // `header.padLength` + TAG_BYTES of room. Returns the frame: the front part of `buffer`.
  kj::ArrayPtr<const kj::byte> seal(const RecordHeader& header, kj::ArrayPtr<kj::byte> buffer, size_t dataBytes);

  // To be called behind a sealed REKEY record, and only there.
  void rekey();

  uint64_t recordsSinceRekey() const { return sinceRekey; }
  uint64_t bytesSealed() const { return bytes; }

 private:
  SealingKey key;
  LinkTag tag;
  uint64_t nonce = 0;
  uint64_t sinceRekey = 0;
  uint64_t bytes = 0;
};

enum class RecordError {
  TOO_SHORT,   // no room for a header and a tag
  BAD_TAG,     // changed, lost, repeated, out of order, or another key's
  BAD_RECORD,  // authentic, but not a record (record.h)
  DEAD,        // failed earlier
};
kj::StringPtr describe(RecordError error);

class RecordOpener {
 public:
  explicit RecordOpener(OpeningKey key) : key(kj::mv(key)) {}

  // Plaintext of a frame body of this length; to be compared with the body before anything is allocated for it.
  static size_t innerBytes(size_t bodyBytes) { return bodyBytes < TAG_BYTES ? 0 : bodyBytes - TAG_BYTES; }

  // `out` has innerBytes(body) bytes, and is either the front of `untrustedBody` or apart from it. The record lies in
  // `out`.
  kj::OneOf<Record, RecordError> open(kj::ArrayPtr<const kj::byte> untrustedBody, kj::ArrayPtr<kj::byte> out);

  // To be called behind an opened REKEY record, and only there.
  void rekey();

  uint64_t recordsSinceRekey() const { return sinceRekey; }
  uint64_t bytesOpened() const { return bytes; }

 private:
  OpeningKey key;
  uint64_t nonce = 0;
  uint64_t sinceRekey = 0;
  uint64_t bytes = 0;
  bool dead = false;

  RecordError fail(RecordError error);
};

}  // namespace postern
