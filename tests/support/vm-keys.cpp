#include "tests/support/vm-keys.h"

namespace postern::test {

VmKeys::VmKeys(Random& random) {
  VmId vm;
  random.fill(kj::arrayPtr(vm.bytes.data(), vm.bytes.size()));
  auto guestKeys = GuestKeyPair::generate(random);
  auto hostKeys = HostKeyPair::generate(random);
  auto secret = LinkSecret::generate(random);
  auto hostPublic = hostKeys.publicKey();
  host.identity = HostIdentity{vm, kj::mv(hostKeys), guestKeys.publicKey(), LinkSecret{secret.bytes.clone()}};
  enrolled = GuestIdentity{vm, kj::mv(guestKeys), hostPublic, kj::mv(secret)};

  auto enrolling = HostKeyPair::generate(random);
  auto token = EnrolmentToken::generate(random);
  newcomer =
      GuestEnrolment{vm, GuestKeyPair::generate(random), enrolling.publicKey(), EnrolmentToken{token.bytes.clone()}};
  host.enrolment = HostEnrolment{vm, kj::mv(enrolling), nullptr, kj::mv(token)};
}

}  // namespace postern::test
