#pragma once
// Seed: one input of a fuzz target, put together from the front as Input takes it apart; and the folder it goes to.

#include <kj/array.h>
#include <kj/string.h>
#include <kj/vector.h>

#include "protocol/wire-int.h"

namespace postern::fuzz {

class Seed {
 public:
  template <typename... Numbers>
  explicit Seed(Numbers... numbers) {
    u8(numbers...);
  }

  template <typename... Numbers>
  Seed& u8(Numbers... numbers) {
    (bytes.add(static_cast<kj::byte>(numbers)), ...);
    return *this;
  }
  Seed& u16(uint16_t number) { return put(number); }
  Seed& u32(uint32_t number) { return put(number); }
  Seed& add(kj::ArrayPtr<const kj::byte> more) {
    bytes.addAll(more);
    return *this;
  }
  kj::ArrayPtr<const kj::byte> asPtr() const { return bytes; }

 private:
  kj::Vector<kj::byte> bytes;

  template <typename T>
  Seed& put(T number) {
    kj::byte out[sizeof(T)];
    putLittleEndian<T>(number, out);
    return add(out);
  }
};

// The seeds of one target. A name says what the seed shows.
class SeedFolder {
 public:
  // Made if it is not there.
  SeedFolder(kj::StringPtr root, kj::StringPtr target);
  void write(kj::StringPtr name, const Seed& seed) { write(name, seed.asPtr()); }
  void write(kj::StringPtr name, kj::ArrayPtr<const kj::byte> bytes);

 private:
  kj::String path;
};

// The targets whose seeds come from the real protocol; the sources are seeds-*.cpp.
void writeWireSeeds(kj::StringPtr root);      // frame, hello, endpoint, serial
void writeSessionSeeds(kj::StringPtr root);   // handshake, establish, record, message
void writeTransferSeeds(kj::StringPtr root);  // transfer
void writeExportSeeds(kj::StringPtr root);    // export

}  // namespace postern::fuzz
