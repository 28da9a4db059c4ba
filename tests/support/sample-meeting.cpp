#include "tests/support/sample-meeting.h"

#include <kj/debug.h>
#include <string.h>

#include <array>

namespace postern::test {

namespace sample {

namespace {

template <size_t N>
std::array<kj::byte, N> filled(kj::byte value) {
  std::array<kj::byte, N> result;
  result.fill(value);
  return result;
}

}  // namespace

Secret<32> secretOf(kj::byte value) {
  auto bytes = filled<32>(value);
  return Secret<32>(kj::arrayPtr(bytes.data(), bytes.size()));
}

GuestKeyPair guestKeys() {
  return {noise::KeyPair::from(secretOf(0x11))};
}
HostKeyPair hostKeys() {
  return {noise::KeyPair::from(secretOf(0x22))};
}
LinkSecret linkSecret() {
  return {secretOf(0x33)};
}
EnrolmentToken token() {
  return {secretOf(0x44)};
}
VmId vm() {
  return {filled<16>(0x55)};
}
Nonce nonceOf(Role role) {
  return filled<32>(role == Role::GUEST ? 0x66 : 0x77);
}

GuestCredentials identity() {
  return GuestIdentity{vm(), guestKeys(), hostKeys().publicKey(), linkSecret()};
}
GuestCredentials enrolment() {
  return GuestEnrolment{vm(), guestKeys(), hostKeys().publicKey(), token()};
}

Confirmation confirmation() {
  Confirmation confirmation;
  confirmation.sessionCounter = 7;
  confirmation.bootId = {0x0102030405060708, 0x090a0b0c0d0e0f10};
  confirmation.agentInstance = {0x1112131415161718, 0x191a1b1c1d1e1f20};
  return confirmation;
}

Acceptance acceptance(bool isEnrolment) {
  Acceptance acceptance;
  if (isEnrolment) acceptance.linkSecret = linkSecret();
  return acceptance;
}

}  // namespace sample

void SameByte::fill(kj::ArrayPtr<kj::byte> out) {
  memset(out.begin(), value, out.size());
}

SampleMeeting::SampleMeeting(GuestCredentials credentials)
    : waitScope(loop),
      timer(kj::origin<kj::TimePoint>()),
      pool(timer),
      credentials(kj::mv(credentials)),
      confirmation(sample::confirmation()) {
  keyring.identity =
      HostIdentity{sample::vm(), sample::hostKeys(), sample::guestKeys().publicKey(), sample::linkSecret()};
  keyring.enrolment = HostEnrolment{sample::vm(), sample::hostKeys(), nullptr, sample::token()};
}

kj::Promise<kj::Own<Session>> SampleMeeting::startGuest() {
  Hello hello;
  hello.role = Role::GUEST;
  hello.nonce = sample::nonceOf(Role::GUEST);
  describeCredentials(credentials, hello);
  return openStreamLink(wire.guestEnd(), hello, scratch)
      .then([this](auto opened) {
        auto& link = KJ_REQUIRE_NONNULL(opened.template tryGet<kj::Own<FrameLink>>(), "no link");
        return establishAsGuest(kj::mv(link), credentials, confirmation, timer.now() + 1 * kj::SECONDS,
                                guestEnvironment);
      })
      .then([](auto outcome) {
        return kj::mv(KJ_REQUIRE_NONNULL(outcome.template tryGet<GuestSession>(), "no session").session);
      });
}

kj::Promise<kj::Own<Session>> SampleMeeting::startHost() {
  Hello hello;
  hello.role = Role::HOST;
  hello.nonce = sample::nonceOf(Role::HOST);
  hello.patterns = PATTERN_KKPSK0 | PATTERN_XXPSK0;
  return openStreamLink(wire.hostEnd(), hello, scratch)
      .then([this](auto opened) {
        auto& link = KJ_REQUIRE_NONNULL(opened.template tryGet<kj::Own<FrameLink>>(), "no link");
        return establishAsHost(kj::mv(link), keyring, timer.now() + 1 * kj::SECONDS, hostEnvironment);
      })
      .then([](auto outcome) {
        auto& incoming = *KJ_REQUIRE_NONNULL(outcome.template tryGet<kj::Own<IncomingSession>>(), "no session");
        return incoming.accept(sample::acceptance(incoming.isEnrolment()));
      });
}

SampleMeeting::Sessions SampleMeeting::connect() {
  auto guest = startGuest().eagerlyEvaluate(nullptr);
  auto host = startHost().wait(waitScope);
  return {guest.wait(waitScope), kj::mv(host)};
}

void SampleMeeting::commit(Sessions& sessions) {
  auto committed = sessions.guest->commit();
  sessions.host->whenCommit().wait(waitScope);
  sessions.host->confirmCommit();
  committed.wait(waitScope);
}

}  // namespace postern::test
