#include "tests/crowd/bad-peer.h"

#include <errno.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>

#include "protocol/handshake.h"
#include "protocol/limits.h"
#include "transport/unix-socket.h"

namespace postern::test {

namespace {

void writeHandshakeFrame(const LinkTag& tag, kj::ArrayPtr<const kj::byte> body, kj::ArrayPtr<kj::byte> out) {
  writeFrameHeader({static_cast<uint16_t>(body.size()), FrameKind::HANDSHAKE, tag}, out);
  memcpy(out.begin() + FRAME_HEADER_BYTES, body.begin(), body.size());
}

}  // namespace

BadPeer::BadPeer(CrowdHost::Vm& vm, Badness badness, Random& random)
    : badness(badness),
      credentials(badness == Badness::NO_SECOND_TURN ? vm.keys.newcomer : vm.keys.enrolled),
      random(random),
      fd(newUnixSocket()) {
  auto address = unixAddress(vm.path);
  KJ_SYSCALL(::connect(fd, reinterpret_cast<sockaddr*>(&address), sizeof(address)));
  describeCredentials(credentials, hello);
  random.fill(kj::arrayPtr(hello.nonce.data(), hello.nonce.size()));
  switch (badness) {
    case Badness::SILENT:
    case Badness::HALF_HANDSHAKE:  // which speaks later, see answer()
      break;
    case Badness::HALF_HELLO:
      sendHello(HELLO_FRAME_BYTES / 2);
      break;
    case Badness::GARBAGE: {
      kj::byte bytes[200];
      random.fill(bytes);
      bytes[2] = 0xff;  // not by chance a frame
      send(bytes);
      break;
    }
    case Badness::HELLO_ONLY:
    case Badness::NO_CONFIRM:
    case Badness::NO_SECOND_TURN:
    case Badness::GARBAGE_HELLO:
    case Badness::GARBAGE_HANDSHAKE:
      sendHello(HELLO_FRAME_BYTES);
      break;
  }
}

void BadPeer::goOn() {
  if (closed) return;
  kj::byte received[512];
  ssize_t n = ::recv(fd, received, sizeof(received), MSG_DONTWAIT);
  if (n > 0) {
    if (!hasAnswered) answer(kj::arrayPtr(received, size_t(n)));
    return;
  }
  closed = n == 0 || (errno != EAGAIN && errno != EINTR);
}

void BadPeer::answer(kj::ArrayPtr<const kj::byte> hostFrame) {
  hasAnswered = true;
  bool hasKeys = badness == Badness::NO_CONFIRM || badness == Badness::NO_SECOND_TURN;
  if (!hasKeys && badness != Badness::HALF_HANDSHAKE && badness != Badness::GARBAGE_HANDSHAKE) return;
  KJ_ASSERT(hostFrame.size() == HELLO_FRAME_BYTES);
  auto hostBytes = hostFrame.slice(FRAME_HEADER_BYTES, HELLO_FRAME_BYTES);
  auto pair = pairHellos(hello, parseHello(hostBytes, hello).get<Hello>(), hostBytes);
  auto tag = linkTag(pair);
  if (hasKeys) {
    auto begun = Handshake::begin(pair, credentials, random);
    auto message = begun.get<kj::Own<Handshake>>()->write();
    sendHandshake(tag, message.get<Handshake::Message>().asPtr());
    return;
  }
  kj::byte body[limits::MAX_HANDSHAKE_BODY_BYTES];
  random.fill(body);
  if (badness == Badness::GARBAGE_HANDSHAKE) {
    sendHandshake(tag, kj::arrayPtr(body, 48));  // as long as the first of KKpsk0
    return;
  }
  // All but a byte in one read of the host's, so that its link has to move what lies behind the HELLO.
  kj::byte both[HELLO_FRAME_BYTES + FRAME_HEADER_BYTES + sizeof(body)];
  auto frame = kj::arrayPtr(both, sizeof(both));
  writeHelloFrame(frame.slice(0, HELLO_FRAME_BYTES));
  writeHandshakeFrame(tag, body, frame.slice(HELLO_FRAME_BYTES, frame.size()));
  send(frame.slice(0, frame.size() - 1));
}

void BadPeer::sendHandshake(const LinkTag& tag, kj::ArrayPtr<const kj::byte> body) {
  kj::byte frame[FRAME_HEADER_BYTES + limits::MAX_HANDSHAKE_BODY_BYTES];
  auto used = kj::arrayPtr(frame, FRAME_HEADER_BYTES + body.size());
  writeHandshakeFrame(tag, body, used);
  send(used);
}

void BadPeer::sendHello(size_t bytes) {
  kj::byte frame[HELLO_FRAME_BYTES];
  writeHelloFrame(frame);
  if (badness == Badness::GARBAGE_HELLO) frame[HELLO_FRAME_BYTES - 1] ^= 1;
  send(kj::arrayPtr(frame, bytes));
}

void BadPeer::writeHelloFrame(kj::ArrayPtr<kj::byte> out) {
  writeFrameHeader({HELLO_BYTES, FrameKind::HELLO, {}}, out);
  writeHello(hello, out.slice(FRAME_HEADER_BYTES, HELLO_FRAME_BYTES));
}

void BadPeer::send(kj::ArrayPtr<const kj::byte> bytes) {
  // Less than a socket's buffer, so all or, when the host has closed already, nothing.
  ssize_t sent = ::send(fd, bytes.begin(), bytes.size(), MSG_NOSIGNAL);
  KJ_ASSERT(sent == ssize_t(bytes.size()) || errno == EPIPE || errno == ECONNRESET, sent, errno);
}

}  // namespace postern::test
