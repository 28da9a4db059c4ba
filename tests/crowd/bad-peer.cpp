#include "tests/crowd/bad-peer.h"

#include <errno.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>

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
    case Badness::HALF_HANDSHAKE:  // these two speak later, see answer()
    case Badness::NO_SECOND_TURN:
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
  KJ_ASSERT(hostFrame.size() == HELLO_FRAME_BYTES);
  auto hostBytes = hostFrame.slice(FRAME_HEADER_BYTES, HELLO_FRAME_BYTES);
  auto pair = pairHellos(hello, parseHello(hostBytes, hello).get<Hello>(), hostBytes);
  auto tag = linkTag(pair);
  switch (badness) {
    case Badness::SILENT:
    case Badness::HALF_HELLO:
    case Badness::HELLO_ONLY:
    case Badness::GARBAGE:
    case Badness::GARBAGE_HELLO:
      break;
    case Badness::HALF_HANDSHAKE:
      sendAllButAByte(tag, nullptr);
      break;
    case Badness::NO_CONFIRM:
      sendHandshake(tag, firstMessage(pair).asPtr());
      break;
    case Badness::NO_SECOND_TURN:
      sendAllButAByte(tag, firstMessage(pair).asPtr());
      break;
    case Badness::GARBAGE_HANDSHAKE: {
      kj::byte body[48];  // as long as the first of KKpsk0
      random.fill(body);
      sendHandshake(tag, body);
      break;
    }
  }
}

Handshake::Message BadPeer::firstMessage(const HelloPair& pair) {
  auto begun = Handshake::begin(pair, credentials, random);
  auto written = begun.get<kj::Own<Handshake>>()->write();
  return written.get<Handshake::Message>();
}

// In one piece, so that the host's link reads it at once and has to keep what lies behind the HELLO.
void BadPeer::sendAllButAByte(const LinkTag& tag, kj::ArrayPtr<const kj::byte> message) {
  kj::byte longest[limits::MAX_HANDSHAKE_BODY_BYTES];
  random.fill(longest);
  kj::byte buffer[HELLO_FRAME_BYTES + 2 * (FRAME_HEADER_BYTES + sizeof(longest))];
  size_t used = HELLO_FRAME_BYTES;
  writeHelloFrame(kj::arrayPtr(buffer, used));
  for (auto body : {message, kj::arrayPtr(const_cast<const kj::byte*>(longest), sizeof(longest))}) {
    if (body.size() == 0) continue;
    auto frame = kj::arrayPtr(buffer + used, FRAME_HEADER_BYTES + body.size());
    writeHandshakeFrame(tag, body, frame);
    used += frame.size();
  }
  send(kj::arrayPtr(buffer, used - 1));
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
