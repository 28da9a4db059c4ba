#pragma once
// SyncScanner: finds the serial link's sync word in a stream of bytes, wherever the stream's chunks begin and end.

#include <kj/array.h>
#include <kj/common.h>

#include <array>

namespace postern {

constexpr size_t SYNC_WORD_BYTES = 16;

// Drawn once from a system's CSPRNG; part of the wire form for ever. Ciphertext contains it at a given place with
// probability 2^-128, and no plaintext that a third party chooses travels unencrypted.
constexpr std::array<kj::byte, SYNC_WORD_BYTES> SYNC_WORD = {0xa4, 0x14, 0xff, 0xef, 0x39, 0x4c, 0x4d, 0x7f,
                                                             0xfd, 0x0e, 0x72, 0x2b, 0x95, 0x87, 0x18, 0x44};

// Keeps the last 15 bytes of what it has seen and no more. After a word is found its bytes do not count for another.
class SyncScanner {
 public:
  // Where in `chunk` the first word ends that ends in it; it may have begun in an earlier chunk. What lies behind has
  // not been looked at then, and is to be the next chunk. Null: none, and the whole chunk has been looked at.
  kj::Maybe<size_t> find(kj::ArrayPtr<const kj::byte> chunk);

  // With how many of the word's first bytes, at most 15, the stream ends so far: a word may be arriving.
  size_t begun() const;

 private:
  std::array<kj::byte, SYNC_WORD_BYTES - 1> tail{};
  size_t tailBytes = 0;

  kj::Maybe<size_t> findAcross(kj::ArrayPtr<const kj::byte> chunk) const;
  void keepTail(kj::ArrayPtr<const kj::byte> chunk);
};

}  // namespace postern
