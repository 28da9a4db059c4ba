#pragma once
// BadPeer: a connection of somebody who proves nothing. Raw socket calls, no promise and no memory of the heap, so that
// what a test counts there is the host's.

#include "protocol/handshake.h"
#include "tests/crowd/crowd-host.h"
#include "tests/support/comes-to.h"

namespace postern::test {

enum class Badness {
  // These wait to be thrown out.
  SILENT,
  HALF_HELLO,
  HELLO_ONLY,
  HALF_HANDSHAKE,  // waits for the host's HELLO, then its own and all but a byte of the longest frame that is allowed
  NO_CONFIRM,      // has the keys, sends the first handshake message and stops
  NO_SECOND_TURN,  // has the token, sends the first message and all but a byte of a second, as long as is allowed
  // These are thrown out for what they sent.
  GARBAGE,
  GARBAGE_HELLO,      // a HELLO whose checksum is wrong
  GARBAGE_HANDSHAKE,  // a handshake message that is random
};
constexpr unsigned WAITING_KINDS = 6;
constexpr unsigned KINDS = 9;
constexpr bool isWaiting(Badness badness) {
  return static_cast<unsigned>(badness) < WAITING_KINDS;
}

class BadPeer {
 public:
  // Connects, and says what it says unasked.
  BadPeer(CrowdHost::Vm& vm, Badness badness, Random& random);

  // Does what there is to do: answers the host's HELLO, notices the end.
  void goOn();
  bool isClosed() const { return closed; }
  // Whether it sees the end, once it has read what the host had said.
  bool closesSoon() {
    auto sees = [this]() {
      goOn();
      return closed;
    };
    return comesTo(sees, true);
  }

  const Badness badness;

 private:
  const GuestCredentials& credentials;
  Random& random;
  kj::AutoCloseFd fd;
  Hello hello;
  bool hasAnswered = false;
  bool closed = false;

  void send(kj::ArrayPtr<const kj::byte> bytes);
  void sendHello(size_t bytes);
  Handshake::Message firstMessage(const HelloPair& pair);
  void sendAllButAByte(const LinkTag& tag, kj::ArrayPtr<const kj::byte> message);
  void answer(kj::ArrayPtr<const kj::byte> hostFrame);
  void sendHandshake(const LinkTag& tag, kj::ArrayPtr<const kj::byte> body);
  void writeHelloFrame(kj::ArrayPtr<kj::byte> out);
};

}  // namespace postern::test
