#include "transport/packet-socket.h"

#include <errno.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>

#include "transport/receive.h"

namespace postern {

namespace {

union Control {
  cmsghdr header;
  char bytes[CMSG_SPACE(MAX_PACKET_DESCRIPTORS * sizeof(int))];
};

enum class Sending { DONE, BLOCKED };

Sending trySend(int socket, Packet& packet) {
  iovec piece{packet.bytes.begin(), packet.bytes.size()};
  Control control;
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (!packet.fds.empty()) {
    memset(&control, 0, sizeof(control));
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(packet.fds.size() * sizeof(int));
    for (size_t i = 0; i < packet.fds.size(); ++i) {
      int raw = packet.fds[i].get();
      memcpy(CMSG_DATA(&control.header) + i * sizeof(raw), &raw, sizeof(raw));
    }
    message.msg_control = &control;
    message.msg_controllen = CMSG_SPACE(packet.fds.size() * sizeof(int));
  }
  ssize_t sent;
  do {
    sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  // Any other error is the other end's death, which receive() sees.
  return sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? Sending::BLOCKED : Sending::DONE;
}

}  // namespace

PacketSocket::PacketSocket(kj::AutoCloseFd fdParam, kj::UnixEventPort& port, size_t maxBytes, size_t maxDescriptors)
    : fd(kj::mv(fdParam)),
      observer(port, fd, kj::UnixEventPort::FdObserver::OBSERVE_READ_WRITE),
      maxBytes(maxBytes),
      maxDescriptors(maxDescriptors) {
  KJ_REQUIRE(maxDescriptors <= MAX_PACKET_DESCRIPTORS);
  if (maxDescriptors == 0) refuseDescriptors(fd);
}

kj::Promise<kj::OneOf<Packet, PacketsEnded, PacketTooMuch>> PacketSocket::receive() {
  using Received = kj::OneOf<Packet, PacketsEnded, PacketTooMuch>;
  if (buffer == nullptr) buffer = kj::heapArray<kj::byte>(maxBytes);
  return receiveInto(buffer).then([this](InBuffer received) -> Received {
    KJ_IF_MAYBE (packet, received.tryGet<PacketInBuffer>()) {
      return Packet{kj::heapArray(buffer.slice(0, packet->bytes)), kj::mv(packet->fds)};
    }
    if (received.is<PacketsEnded>()) return PacketsEnded{};
    return PacketTooMuch{};
  });
}

kj::Promise<kj::OneOf<PacketInBuffer, PacketsEnded, PacketTooMuch>> PacketSocket::receiveInto(
    kj::ArrayPtr<kj::byte> into) {
  KJ_IF_MAYBE (received, receiveNow(into)) return kj::mv(*received);
  return observer.whenBecomesReadable().then([this, into] { return receiveInto(into); });
}

kj::Maybe<PacketSocket::InBuffer> PacketSocket::receiveNow(kj::ArrayPtr<kj::byte> into) {
  iovec piece{into.begin(), kj::min(into.size(), maxBytes)};
  auto received = postern::receive(fd, kj::arrayPtr(&piece, 1), 0, maxDescriptors);
  // The other end has closed with something unread: told once, and before what it had said itself.
  if (received.bytes < 0 && errno == ECONNRESET) return receiveNow(into);
  if (received.bytes < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return nullptr;
  if (received.bytes <= 0 || received.isCut) {
    for (auto& one : received.fds) closeElsewhere(kj::mv(one));
  }
  if (received.bytes <= 0) return InBuffer(PacketsEnded{});
  if (received.isCut || (maxDescriptors == 0 && received.broughtMore)) return InBuffer(PacketTooMuch{});
  return InBuffer(PacketInBuffer{size_t(received.bytes), kj::mv(received.fds), received.broughtMore});
}

void PacketSocket::send(Packet packet) {
  KJ_REQUIRE(packet.fds.size() <= MAX_PACKET_DESCRIPTORS);
  outgoingBytes += packet.bytes.size();
  outgoing.push_back(kj::mv(packet));
  if (waitsToSend || sendNow()) return;
  waitsToSend = true;
  sending = sendWhenWritable().eagerlyEvaluate(nullptr);
}

// Whether nothing is left.
bool PacketSocket::sendNow() {
  while (!outgoing.empty()) {
    if (trySend(fd, outgoing.front()) == Sending::BLOCKED) return false;
    outgoingBytes -= outgoing.front().bytes.size();
    outgoing.pop_front();
  }
  return true;
}

kj::Promise<void> PacketSocket::sendWhenWritable() {
  return observer.whenBecomesWritable().then([this]() -> kj::Promise<void> {
    if (!sendNow()) return sendWhenWritable();
    waitsToSend = false;
    KJ_IF_MAYBE (waiter, sentWaiter) {
      auto own = kj::mv(*waiter);
      sentWaiter = nullptr;
      own->fulfill();
    }
    return kj::READY_NOW;
  });
}

kj::Promise<void> PacketSocket::whenSent() {
  if (outgoing.empty()) return kj::READY_NOW;
  auto paf = kj::newPromiseAndFulfiller<void>();
  sentWaiter = kj::mv(paf.fulfiller);
  return kj::mv(paf.promise);
}

}  // namespace postern
