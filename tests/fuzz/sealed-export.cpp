#include "tests/fuzz/sealed-export.h"

#include <kj/debug.h>
#include <string.h>

#include "protocol/noise/handshake-state.h"
#include "tests/support/test-random.h"

namespace postern::fuzz {

namespace {

constexpr char PROLOGUE[] = "postern/export/1";  // with its NUL

MovingHosts makeHosts() {
  test::TestRandom random(5);
  auto source = host::TransferKeyPair::generate(random);
  return {kj::mv(source), host::TransferKeyPair::generate(random)};
}

}  // namespace

const MovingHosts& MovingHosts::get() {
  static const MovingHosts hosts = makeHosts();
  return hosts;
}

kj::Array<kj::byte> sealedExport(kj::ArrayPtr<const kj::byte> payload) {
  auto& hosts = MovingHosts::get();
  auto& to = hosts.destination.pair.publicKey;
  test::TestRandom random(6);
  noise::HandshakeKeys keys;
  keys.ephemeral = host::TransferKeyPair::generate(random).pair;
  keys.ownStatic = hosts.source.pair;
  keys.peerStatic = to;
  noise::HandshakeState handshake(KJ_ASSERT_NONNULL(noise::Pattern::parse("X")), noise::HashKind::BLAKE2B,
                                  noise::Side::INITIATOR, kj::arrayPtr(PROLOGUE, sizeof(PROLOGUE)).asBytes(),
                                  kj::mv(keys));
  auto sealed = kj::heapArray<kj::byte>(to.size() + handshake.nextOverhead() + payload.size());
  memcpy(sealed.begin(), to.data(), to.size());
  auto written = handshake.writeMessage(payload, sealed.slice(to.size(), sealed.size()));
  KJ_ASSERT(written.is<size_t>());
  return sealed;
}

}  // namespace postern::fuzz
