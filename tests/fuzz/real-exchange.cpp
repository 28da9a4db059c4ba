#include "tests/fuzz/real-exchange.h"

#include <kj/debug.h>
#include <string.h>

namespace postern::fuzz {

RealExchange::RealExchange(Pattern pattern, Pin pin) {
  makeKeys(pattern, Pin::NONE);
  describeCredentials(guestCredentials, guestHello);
  guestHello.role = Role::GUEST;
  guestHello.nonce.fill(1);
  hostHello.role = Role::HOST;
  hostHello.patterns = PATTERN_KKPSK0 | PATTERN_XXPSK0;
  hostHello.nonce.fill(2);
  run();
  // The pins decide who is refused, and nothing of what is said.
  makeKeys(pattern, pin);
}

const RealExchange& RealExchange::of(Pattern pattern, Pin pin) {
  static kj::Own<const RealExchange> made[2][3];
  auto& exchange = made[static_cast<size_t>(pattern)][static_cast<size_t>(pin)];
  if (exchange.get() == nullptr) exchange = kj::heap<RealExchange>(pattern, pin);
  return *exchange;
}

void RealExchange::makeKeys(Pattern pattern, Pin pin) {
  test::TestRandom random(5);
  VmId vm;
  random.fill(kj::arrayPtr(vm.bytes.data(), vm.bytes.size()));
  auto guest = GuestKeyPair::generate(random);
  auto host = HostKeyPair::generate(random);
  auto guestPublic = guest.publicKey();
  auto hostPublic = host.publicKey();
  if (pattern == Pattern::SESSION) {
    auto secret = LinkSecret::generate(random);
    keyring.identity = HostIdentity{vm, kj::mv(host), guestPublic, LinkSecret{secret.bytes.clone()}};
    guestCredentials = GuestIdentity{vm, kj::mv(guest), hostPublic, kj::mv(secret)};
    return;
  }
  auto token = EnrolmentToken::generate(random);
  kj::Maybe<GuestPublicKey> guestPin;
  kj::Maybe<HostPublicKey> hostPin;
  if (pin == Pin::RIGHT) {
    guestPin = guestPublic;
    hostPin = hostPublic;
  } else if (pin == Pin::WRONG) {
    guestPin = GuestKeyPair::generate(random).publicKey();
    hostPin = HostKeyPair::generate(random).publicKey();
  }
  keyring.enrolment = HostEnrolment{vm, kj::mv(host), guestPin, EnrolmentToken{token.bytes.clone()}};
  guestCredentials = GuestEnrolment{vm, kj::mv(guest), hostPin, kj::mv(token)};
}

kj::Array<kj::byte> RealExchange::helloOf(Role role) const {
  auto bytes = kj::heapArray<kj::byte>(HELLO_BYTES);
  writeHello(role == Role::GUEST ? guestHello : hostHello, bytes);
  return bytes;
}

HelloPair RealExchange::hellosAt(Role self) const {
  bool isGuest = self == Role::GUEST;
  return pairHellos(isGuest ? guestHello : hostHello, isGuest ? hostHello : guestHello,
                    helloOf(isGuest ? Role::HOST : Role::GUEST));
}

void RealExchange::run() {
  auto atGuest = hellosAt(Role::GUEST);
  auto atHost = hellosAt(Role::HOST);
  auto randomOfGuest = guestRandom();
  auto randomOfHost = hostRandom();
  auto begunGuest = Handshake::begin(atGuest, guestCredentials, randomOfGuest);
  auto begunHost = Handshake::begin(atHost, keyring, randomOfHost);
  auto& guest = *begunGuest.get<kj::Own<Handshake>>();
  auto& host = *begunHost.get<kj::Own<Handshake>>();
  while (!guest.isFinished() || !host.isFinished()) {
    auto& from = guest.isWriting() ? guest : host;
    auto& to = guest.isWriting() ? host : guest;
    auto written = from.write();
    auto& message = written.get<Handshake::Message>();
    KJ_ASSERT(to.read(message.asPtr()) == nullptr, "an honest peer was refused");
    messages.add(kj::heapArray<kj::byte>(message.asPtr()));
  }
  auto keys = guest.finish();
  memcpy(guestToHost.data(), keys.sealing.bytes.begin(), guestToHost.size());
  memcpy(hostToGuest.data(), keys.opening.bytes.begin(), hostToGuest.size());
}

}  // namespace postern::fuzz
