#pragma once
// RealExchange: one handshake between an honest guest and an honest host with keys that are the same in every run, and
// what each end needs to take part in it again and say the same bytes.

#include <kj/array.h>
#include <kj/vector.h>

#include "protocol/handshake.h"
#include "tests/support/session-lab.h"

namespace postern::fuzz {

enum class Pattern { SESSION, ENROLMENT };
// Enrolment: what an end knows of the other's key beforehand.
enum class Pin { NONE, RIGHT, WRONG };

class RealExchange {
 public:
  RealExchange(Pattern pattern, Pin pin);

  // Made once for each pair of values, and kept.
  static const RealExchange& of(Pattern pattern, Pin pin);

  const GuestCredentials& guest() const { return guestCredentials; }
  // Only looked into, but a keyring's methods are not const.
  HostKeyring& host() const { return keyring; }

  // With these an end makes the same ephemeral key as it did here.
  test::TestRandom guestRandom() const { return test::TestRandom(11); }
  test::TestRandom hostRandom() const { return test::TestRandom(12); }

  // The HELLO_BYTES that each sent.
  Hello guestHello;
  Hello hostHello;
  kj::Array<kj::byte> helloOf(Role role) const;
  HelloPair hellosAt(Role self) const;

  // HS 1, HS 2 (and HS 3), as they went over the wire when neither end had a pin.
  kj::Vector<kj::Array<kj::byte>> messages;
  std::array<kj::byte, 32> guestToHost{};
  std::array<kj::byte, 32> hostToGuest{};

 private:
  GuestCredentials guestCredentials;
  mutable test::LabKeyring keyring;

  void makeKeys(Pattern pattern, Pin pin);
  void run();
};

}  // namespace postern::fuzz
