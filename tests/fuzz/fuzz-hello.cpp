// parseHello() over any bytes: what it takes for a HELLO is written back as the same bytes, but for the reserved ones.
//
// input = u8 flags | the bytes
// flags: 1 the reading end is the host, 2 put the right CRC in, so that the fuzzer gets past it, 4 the reading end
//        speaks more versions than one

#include <string.h>

#include "protocol/crc32c.h"
#include "protocol/hello.h"
#include "protocol/wire-int.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/verdict.h"

namespace postern::fuzz {
namespace {

constexpr size_t RESERVED_FROM = 64, RESERVED_TO = 96, CRC_AT = 108;

void putCrc(kj::ArrayPtr<kj::byte> hello) {
  putLittleEndian<uint32_t>(crc32c(hello.slice(0, CRC_AT)), hello.begin() + CRC_AT);
}

void judge(const Hello& own, const Hello& peer, kj::ArrayPtr<const kj::byte> bytes) {
  expect(bytes.size() == HELLO_BYTES, "a HELLO has its length");
  expect(own.role != peer.role, "the ends of a link have different roles");
  expect(peer.versionMin <= own.versionMax && own.versionMin <= peer.versionMax, "the ends have a version in common");

  auto comparable = copyOf(bytes);
  expect(getLittleEndian<uint32_t>(&comparable[CRC_AT]) == crc32c(comparable.slice(0, CRC_AT)), "the CRC was checked");
  memset(comparable.begin() + RESERVED_FROM, 0, RESERVED_TO - RESERVED_FROM);
  putCrc(comparable);
  auto again = kj::heapArray<kj::byte>(HELLO_BYTES);
  writeHello(peer, again);
  expect(again == comparable, "what was parsed is written as the same bytes");

  auto pair = pairHellos(own, peer, bytes);
  expect(memcmp(pair.peerBytes.data(), bytes.begin(), HELLO_PROLOGUE_BYTES) == 0,
         "the prologue has the bytes as they came, reserved ones included");
  expect(&pair.guest() != &pair.host() && pair.guest().role == Role::GUEST, "a pair has a guest and a host");
  expect(linkTag(pair) == (own.role == Role::HOST ? linkTag(own.nonce, peer.nonce) : linkTag(peer.nonce, own.nonce)),
         "both ends get the same tag");
}

void run(Input input) {
  uint8_t flags = input.u8();
  Hello own;
  own.role = (flags & 1) != 0 ? Role::HOST : Role::GUEST;
  if ((flags & 4) != 0) own.versionMax = 3;
  own.nonce.fill(7);
  auto bytes = copyOf(input.takeAll());
  if ((flags & 2) != 0 && bytes.size() == HELLO_BYTES) putCrc(bytes);

  auto parsed = parseHello(bytes, own);
  KJ_SWITCH_ONEOF(parsed) {
    KJ_CASE_ONEOF(peer, Hello) {
      judge(own, peer, bytes);
    }
    KJ_CASE_ONEOF(error, HelloError) {
      expect(describe(error).size() > 0, "every error has a text");
    }
  }
}

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postern::fuzz::NoFailedAssertions noFailedAssertions;
  postern::fuzz::run({data, size});
  return 0;
}
