// noise-allocations: both of Postern's handshakes, complete, without one allocation. A program of its own, since it
// replaces operator new (which all of KJ uses) by one that counts.

#include <kj/array.h>
#include <kj/debug.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <new>

#include "protocol/noise/handshake-state.h"

namespace {
unsigned allocations = 0;
}

void* operator new(size_t size) {
  ++allocations;
  void* memory = malloc(size);
  if (memory == nullptr) abort();
  return memory;
}
void operator delete(void* memory) noexcept {
  free(memory);
}
void operator delete(void* memory, size_t) noexcept {
  free(memory);
}

namespace postern::noise {
namespace {

KeyPair keyPairOf(kj::byte seed) {
  Secret<KEY_BYTES> secret;
  memset(secret.begin(), seed, KEY_BYTES);
  return KeyPair::from(kj::mv(secret));
}

void pass(HandshakeState& writer, HandshakeState& reader) {
  kj::byte message[256];
  auto written = writer.writeMessage(nullptr, message);
  auto read = reader.readMessage(kj::arrayPtr(message, written.get<size_t>()), nullptr);
  KJ_REQUIRE(read.is<size_t>());
}

// Ends with the same keys at both ends, or throws.
void shakeHands(kj::StringPtr name) {
  auto pattern = KJ_REQUIRE_NONNULL(Pattern::parse(name));
  auto guest = keyPairOf(1);
  auto host = keyPairOf(2);
  Secret<32> psk;
  kj::Maybe<const PublicKey&> guestKnown;
  kj::Maybe<const PublicKey&> hostKnown;
  if (pattern.knowsStaticOf(Side::INITIATOR)) guestKnown = guest.publicKey;
  if (pattern.knowsStaticOf(Side::RESPONDER)) hostKnown = host.publicKey;

  HandshakeState initiator(pattern, HashKind::BLAKE2B, Side::INITIATOR, nullptr,
                           {keyPairOf(3), guest, hostKnown, kj::arrayPtr(&psk, 1)});
  HandshakeState responder(pattern, HashKind::BLAKE2B, Side::RESPONDER, nullptr,
                           {keyPairOf(4), host, guestKnown, kj::arrayPtr(&psk, 1)});
  while (!initiator.isFinished() || !responder.isFinished()) {
    initiator.isWriting() ? pass(initiator, responder) : pass(responder, initiator);
  }
  KJ_REQUIRE(initiator.split().initiatorToResponder.equals(responder.split().initiatorToResponder));
}

int run() {
  if (sodium_init() < 0) return 1;
  kj::heapArray<kj::byte>(1);
  if (allocations != 1) {
    fprintf(stderr, "noise-allocations: an allocation was not counted\n");
    return 1;
  }
  allocations = 0;
  for (auto name : {"KKpsk0"_kj, "XXpsk0"_kj}) {
    shakeHands(name);
    printf("%s: %u allocations\n", name.cStr(), allocations);
  }
  return allocations == 0 ? 0 : 1;
}

}  // namespace
}  // namespace postern::noise

int main() {
  return postern::noise::run();
}
