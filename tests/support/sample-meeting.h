#pragma once
// SampleMeeting: a guest and a host with fixed keys and fixed randomness, so that they put the same bytes on the wire
// in every run: those of docs/PROTOCOL.md's example, and of the sessions in tests/samples.

#include "tests/support/session-lab.h"

namespace postern::test {

namespace sample {

Secret<32> secretOf(kj::byte value);
GuestKeyPair guestKeys();
HostKeyPair hostKeys();
LinkSecret linkSecret();
EnrolmentToken token();
VmId vm();
GuestCredentials identity();
GuestCredentials enrolment();
Confirmation confirmation();
Acceptance acceptance(bool isEnrolment);
Nonce nonceOf(Role role);

}  // namespace sample

class SameByte final : public Random {
 public:
  explicit SameByte(kj::byte value) : value(value) {}
  void fill(kj::ArrayPtr<kj::byte> out) override;

 private:
  const kj::byte value;
};

class SampleMeeting {
 public:
  explicit SampleMeeting(GuestCredentials credentials);
  KJ_DISALLOW_COPY(SampleMeeting);

  kj::EventLoop loop;
  kj::WaitScope waitScope;
  kj::TimerImpl timer;
  FakeWire wire;

  struct Sessions {
    kj::Own<Session> guest;
    kj::Own<Session> host;
  };
  // Both ends, over the wire; an enrolment is not committed yet.
  Sessions connect();
  void commit(Sessions& sessions);

  // One end, until it has a session. The other one's bytes are put into the wire by whoever calls.
  kj::Promise<kj::Own<Session>> startGuest();
  kj::Promise<kj::Own<Session>> startHost();

 private:
  BlockPool pool;
  ReadScratch scratch;
  SameByte guestRandom{0x88};
  SameByte hostRandom{0x99};
  SessionEnvironment guestEnvironment{timer, pool, guestRandom};
  SessionEnvironment hostEnvironment{timer, pool, hostRandom};
  GuestCredentials credentials;
  const Confirmation confirmation;
  LabKeyring keyring;
};

}  // namespace postern::test
