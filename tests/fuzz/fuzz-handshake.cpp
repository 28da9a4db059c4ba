// One end's handshake against any messages: it finishes if and only if both HELLOs and all messages are, byte for byte,
// those of an honest peer with the right keys; and after it has refused one message it refuses all.
//
// input = u8 flags | u8 place and u8 mask: a byte of the peer's HELLO that is changed on the way (mask 0: none)
//         | messages, each u8 kind and what that needs:
//           0 the next real one   1 that with a byte changed: u8 place, u8 mask   2 any bytes: u8 length, bytes
//           3 the real one cut to u8 bytes   4 the real one and u8 length, bytes behind it
// flags: 1 this end is the host, 2 enrolment, 4 this end knows the peer's key, 8 and knows it wrong

#include <string.h>

#include "protocol/crc32c.h"
#include "tests/fuzz/input.h"
#include "tests/fuzz/real-exchange.h"
#include "tests/fuzz/verdict.h"

namespace postern::fuzz {
namespace {

struct Setting {
  Role self;
  Pattern pattern;
  Pin pin;

  explicit Setting(uint8_t flags)
      : self((flags & 1) != 0 ? Role::HOST : Role::GUEST),
        pattern((flags & 2) != 0 ? Pattern::ENROLMENT : Pattern::SESSION),
        pin((flags & 4) == 0   ? Pin::NONE
            : (flags & 8) == 0 ? Pin::RIGHT
                               : Pin::WRONG) {}

  bool isRefusedBecauseOfPin() const { return pattern == Pattern::ENROLMENT && pin == Pin::WRONG; }
};

// The peer's HELLO as it arrives. Its checksum is right; that is not what is judged here.
kj::Array<kj::byte> arrivingHello(const RealExchange& real, Role peer, uint8_t place, uint8_t mask) {
  auto bytes = real.helloOf(peer);
  auto& changed = bytes[place % HELLO_PROLOGUE_BYTES];
  changed = static_cast<kj::byte>(changed ^ mask);
  putLittleEndian<uint32_t>(crc32c(bytes.slice(0, HELLO_BYTES - 4)), bytes.begin() + HELLO_BYTES - 4);
  return bytes;
}

kj::Array<kj::byte> arrivingMessage(Input& input, kj::ArrayPtr<const kj::byte> real) {
  uint8_t kind = input.u8() % 5;
  if (kind == 2) return copyOf(input.take(input.u8()));
  if (kind == 3) return copyOf(real.slice(0, std::min<size_t>(input.u8(), real.size())));
  auto behind = kind == 4 ? input.take(input.u8()) : nullptr;
  auto bytes = kj::heapArray<kj::byte>(real.size() + behind.size());
  std::copy(real.begin(), real.end(), bytes.begin());
  std::copy(behind.begin(), behind.end(), bytes.begin() + real.size());
  if (kind == 1 && bytes.size() > 0) {
    auto& changed = bytes[input.u8() % bytes.size()];
    changed = static_cast<kj::byte>(changed ^ input.u8());
  }
  return bytes;
}

class Victim {
 public:
  Victim(const RealExchange& real, const Setting& setting, const HelloPair& hellos)
      : real(real),
        setting(setting),
        random(setting.self == Role::GUEST ? real.guestRandom() : real.hostRandom()),
        begun(setting.self == Role::GUEST ? Handshake::begin(hellos, real.guest(), random)
                                          : Handshake::begin(hellos, real.host(), random)) {}

  void run(Input& input, bool helloIsReal) {
    bool allReal = helloIsReal;
    if (begun.is<HandshakeRefusal>()) {
      expect(!allReal, "an honest HELLO is not refused");
      return;
    }
    auto& handshake = *begun.get<kj::Own<Handshake>>();
    while (next < real.messages.size()) {
      if (handshake.isWriting()) {
        write(handshake, allReal);
      } else {
        if (input.isEmpty()) return judgeUnfinished(handshake);
        auto message = arrivingMessage(input, real.messages[next]);
        allReal = allReal && message == real.messages[next];
        ++next;
        if (handshake.read(message) != nullptr) return judgeRefusal(handshake, allReal);
        expect(allReal, "a message that is not the real peer's is refused");
      }
    }
    judgeFinish(handshake);
  }

 private:
  const RealExchange& real;
  const Setting setting;
  test::TestRandom random;
  kj::OneOf<kj::Own<Handshake>, HandshakeRefusal> begun;
  size_t next = 0;

  void write(Handshake& handshake, bool allReal) {
    auto written = handshake.write();
    // The guest speaks first and cannot know yet that it was lied to.
    auto& message = written.get<Handshake::Message>();
    if (allReal) expect(message.asPtr() == real.messages[next], "the same keys and randomness say the same");
    ++next;
  }

  void judgeUnfinished(Handshake& handshake) {
    expect(!handshake.isFinished(), "a handshake does not finish before its last message");
  }

  void judgeRefusal(Handshake& handshake, bool allReal) {
    expect(!allReal || setting.isRefusedBecauseOfPin(), "an honest peer is not refused");
    for (auto& message : real.messages) {
      expect(handshake.read(message) != nullptr, "after a refusal everything is refused");
    }
  }

  void judgeFinish(Handshake& handshake) {
    expect(handshake.isFinished(), "all messages make a handshake");
    expect(!setting.isRefusedBecauseOfPin(), "a peer with another key than the pinned one is refused");
    for (auto& message : real.messages) {
      expect(handshake.read(message) != nullptr, "a finished handshake takes no more");
    }
    auto result = handshake.finish();
    bool isGuest = setting.self == Role::GUEST;
    auto& sealing = isGuest ? real.guestToHost : real.hostToGuest;
    auto& opening = isGuest ? real.hostToGuest : real.guestToHost;
    expect(memcmp(result.sealing.bytes.begin(), sealing.data(), sealing.size()) == 0, "both ends have the same keys");
    expect(memcmp(result.opening.bytes.begin(), opening.data(), opening.size()) == 0, "both ends have the same keys");
    expect(result.enrolment == (setting.pattern == Pattern::ENROLMENT), "an enrolment is known as one");
  }
};

void run(Input input) {
  Setting setting(input.u8());
  auto& real = RealExchange::of(setting.pattern, setting.pin);
  Role peer = setting.self == Role::GUEST ? Role::HOST : Role::GUEST;
  uint8_t place = input.u8();
  auto bytes = arrivingHello(real, peer, place, input.u8());
  auto& own = setting.self == Role::GUEST ? real.guestHello : real.hostHello;
  auto parsed = parseHello(bytes, own);
  if (parsed.is<HelloError>()) return;

  auto hellos = pairHellos(own, parsed.get<Hello>(), bytes);
  Victim victim(real, setting, hellos);
  victim.run(input, bytes == real.helloOf(peer));
}

}  // namespace
}  // namespace postern::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  postern::fuzz::NoFailedAssertions noFailedAssertions;
  postern::fuzz::run({data, size});
  return 0;
}
