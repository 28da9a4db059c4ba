// noise-peer SIDE PATTERN HASH KEYS: one side of a handshake over stdin and stdout, for tests against another
// implementation.
//
//   SIDE     initiator | responder
//   PATTERN  as in the protocol's name: KKpsk0
//   HASH     BLAKE2b | SHA256 | SHA512
//   KEYS     a file or pipe of lines "NAME HEX": prologue, ephemeral, static, peer-static, psk (may be repeated)
//
// Every message has its length before it, two bytes, high byte first. After the handshake "hash HEX" and, if there is
// one, "peer-static HEX" are written to stderr; then each transport message that comes is sent back with its bytes in
// reverse order, until the end of stdin.
//
// Exit status: 0 done, 2 bad arguments, 3 handshake failed, 4 transport message refused, 5 stdin ended too early.

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <kj/encoding.h>
#include <kj/io.h>
#include <kj/vector.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <algorithm>

#include "protocol/noise/handshake-state.h"

namespace postern::noise {
namespace {

enum Exit : int { DONE = 0, BAD_ARGUMENTS = 2, HANDSHAKE_FAILED = 3, TRANSPORT_REFUSED = 4, ENDED_EARLY = 5 };

constexpr kj::StringPtr GREETING = "from noise-peer"_kj;

struct Keys {
  kj::Array<kj::byte> prologue;
  kj::Maybe<KeyPair> ephemeral;
  kj::Maybe<KeyPair> ownStatic;
  kj::Maybe<PublicKey> peerStatic;
  kj::Vector<Secret<KEY_BYTES>> psks;
};

KeyPair keyPairFrom(kj::ArrayPtr<const kj::byte> bytes) {
  KJ_REQUIRE(bytes.size() == KEY_BYTES, "key is not 32 bytes");
  return KeyPair::from(Secret<KEY_BYTES>(bytes));
}

void addKey(Keys& keys, kj::StringPtr name, kj::Array<kj::byte> value) {
  if (name == "prologue") {
    keys.prologue = kj::mv(value);
  } else if (name == "ephemeral") {
    keys.ephemeral = keyPairFrom(value);
  } else if (name == "static") {
    keys.ownStatic = keyPairFrom(value);
  } else if (name == "peer-static") {
    PublicKey key;
    KJ_REQUIRE(value.size() == key.size(), "key is not 32 bytes");
    memcpy(key.data(), value.begin(), key.size());
    keys.peerStatic = key;
  } else if (name == "psk") {
    KJ_REQUIRE(value.size() == KEY_BYTES, "psk is not 32 bytes");
    keys.psks.add(Secret<KEY_BYTES>(value));
  } else {
    KJ_FAIL_REQUIRE("unknown name in the file of keys", name);
  }
}

Keys readKeys(const char* path) {
  int descriptor = open(path, O_RDONLY | O_CLOEXEC);
  KJ_REQUIRE(descriptor >= 0, "cannot open the file of keys", strerror(errno));
  auto text = kj::FdInputStream(kj::AutoCloseFd(descriptor)).readAllText();

  Keys keys;
  for (kj::StringPtr rest = text; rest.size() > 0;) {
    size_t lineEnd = KJ_REQUIRE_NONNULL(rest.findFirst('\n'), "last line has no end");
    auto line = kj::heapString(rest.slice(0, lineEnd));
    rest = rest.slice(lineEnd + 1);
    size_t space = KJ_REQUIRE_NONNULL(line.findFirst(' '), "line is not NAME HEX");
    auto value = kj::decodeHex(line.slice(space + 1));
    KJ_REQUIRE(!value.hadErrors, "not hexadecimal");
    addKey(keys, kj::heapString(line.slice(0, space)), kj::mv(value));
  }
  return keys;
}

// Messages with their length before them.
class Wire {
 public:
  // Null at the end of stdin.
  kj::Maybe<kj::Array<kj::byte>> read() {
    kj::byte length[2];
    if (in.tryRead(length, sizeof(length), sizeof(length)) < sizeof(length)) return nullptr;
    auto message = kj::heapArray<kj::byte>(size_t(length[0]) << 8 | length[1]);
    if (in.tryRead(message.begin(), message.size(), message.size()) < message.size()) return nullptr;
    return kj::mv(message);
  }

  void write(kj::ArrayPtr<const kj::byte> message) {
    const kj::byte length[2] = {kj::byte(message.size() >> 8), kj::byte(message.size())};
    out.write(length, sizeof(length));
    out.write(message.begin(), message.size());
  }

 private:
  kj::FdInputStream in{STDIN_FILENO};
  kj::FdOutputStream out{STDOUT_FILENO};
};

Exit shakeHands(HandshakeState& state, Wire& wire) {
  kj::byte buffer[1024];
  while (!state.isFinished()) {
    kj::OneOf<size_t, HandshakeError> result;
    if (state.isWriting()) {
      result = state.writeMessage(GREETING.asBytes(), buffer);
      KJ_IF_MAYBE (size, result.tryGet<size_t>()) wire.write(kj::arrayPtr(buffer, *size));
    } else {
      KJ_IF_MAYBE (message, wire.read()) {
        result = state.readMessage(*message, buffer);
      } else {
        return ENDED_EARLY;
      }
    }
    KJ_IF_MAYBE (error, result.tryGet<HandshakeError>()) {
      fprintf(stderr, "failed: %s\n", describe(*error).cStr());
      return HANDSHAKE_FAILED;
    }
  }
  return DONE;
}

void report(const HandshakeState& state) {
  fprintf(stderr, "hash %s\n", kj::encodeHex(state.handshakeHash()).cStr());
  KJ_IF_MAYBE (key, state.peerStatic()) {
    fprintf(stderr, "peer-static %s\n", kj::encodeHex(kj::arrayPtr(key->data(), key->size())).cStr());
  }
  fflush(stderr);
}

Exit echo(CipherState& sending, CipherState& receiving, Wire& wire) {
  for (;;) {
    KJ_IF_MAYBE (message, wire.read()) {
      if (message->size() < TAG_BYTES) return TRANSPORT_REFUSED;
      auto text = kj::heapArray<kj::byte>(message->size() - TAG_BYTES);
      if (!receiving.decrypt(nullptr, *message, text)) return TRANSPORT_REFUSED;
      std::reverse(text.begin(), text.end());
      sending.encrypt(nullptr, text, *message);
      wire.write(*message);
    } else {
      return DONE;
    }
  }
}

Exit run(Side side, Pattern pattern, HashKind hash, const char* keysPath) {
  auto given = readKeys(keysPath);
  HandshakeKeys keys{kj::mv(given.ephemeral), given.ownStatic, given.peerStatic, given.psks};
  HandshakeState state(pattern, hash, side, given.prologue, kj::mv(keys));

  Wire wire;
  Exit result = shakeHands(state, wire);
  if (result != DONE) return result;
  report(state);

  auto session = state.split();
  CipherState fromInitiator;
  CipherState fromResponder;
  fromInitiator.setKey(session.initiatorToResponder);
  fromResponder.setKey(session.responderToInitiator);
  bool initiator = side == Side::INITIATOR;
  return echo(initiator ? fromInitiator : fromResponder, initiator ? fromResponder : fromInitiator, wire);
}

Exit main(int argc, char** argv) {
  if (argc != 5 || sodium_init() < 0) return BAD_ARGUMENTS;
  kj::StringPtr sideName = argv[1];
  if (sideName != "initiator" && sideName != "responder") return BAD_ARGUMENTS;
  KJ_IF_MAYBE (pattern, Pattern::parse(argv[2])) {
    KJ_IF_MAYBE (hash, parseHashName(argv[3])) {
      return run(sideName == "initiator" ? Side::INITIATOR : Side::RESPONDER, *pattern, *hash, argv[4]);
    }
  }
  return BAD_ARGUMENTS;
}

}  // namespace
}  // namespace postern::noise

int main(int argc, char** argv) {
  int result = postern::noise::BAD_ARGUMENTS;
  KJ_IF_MAYBE (problem, kj::runCatchingExceptions([&]() { result = postern::noise::main(argc, argv); })) {
    fprintf(stderr, "noise-peer: %s\n", problem->getDescription().cStr());
  }
  if (result == postern::noise::BAD_ARGUMENTS) {
    fprintf(stderr, "usage: noise-peer initiator|responder PATTERN HASH KEYS\n");
  }
  return result;
}
