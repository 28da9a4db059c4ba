#include "guest-agent/broker/packet-socket.h"

#include <errno.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>

namespace postern::guest {

namespace {

// What one message may carry; of more the kernel closes the rest and says MSG_CTRUNC.
union OneDescriptor {
  cmsghdr header;
  char bytes[CMSG_SPACE(sizeof(int))];
};

// The descriptor that came along; a control message always holds it whole.
kj::Maybe<kj::AutoCloseFd> takeDescriptor(msghdr& message) {
  auto* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) return nullptr;
  if (header->cmsg_len < CMSG_LEN(sizeof(int))) return nullptr;
  int fd;
  memcpy(&fd, CMSG_DATA(header), sizeof(fd));
  return kj::AutoCloseFd(fd);
}

enum class Sending { DONE, BLOCKED };

Sending trySend(int socket, Packet& packet) {
  iovec piece{packet.bytes.begin(), packet.bytes.size()};
  OneDescriptor control;
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  KJ_IF_MAYBE (fd, packet.fd) {
    memset(&control, 0, sizeof(control));
    control.header.cmsg_level = SOL_SOCKET;
    control.header.cmsg_type = SCM_RIGHTS;
    control.header.cmsg_len = CMSG_LEN(sizeof(int));
    int raw = fd->get();
    memcpy(CMSG_DATA(&control.header), &raw, sizeof(raw));
    message.msg_control = &control;
    message.msg_controllen = sizeof(control);
  }
  ssize_t sent;
  do {
    sent = sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
  } while (sent < 0 && errno == EINTR);
  // Any other error is the other end's death, which receive() sees.
  return sent < 0 && (errno == EAGAIN || errno == EWOULDBLOCK) ? Sending::BLOCKED : Sending::DONE;
}

}  // namespace

PacketSocket::PacketSocket(kj::AutoCloseFd fdParam, kj::UnixEventPort& port, size_t maxBytes, Descriptors descriptors)
    : fd(kj::mv(fdParam)),
      observer(port, fd, kj::UnixEventPort::FdObserver::OBSERVE_READ_WRITE),
      descriptors(descriptors),
      buffer(kj::heapArray<kj::byte>(maxBytes)) {}

kj::Promise<PacketSocket::Received> PacketSocket::receive() {
  KJ_IF_MAYBE (received, receiveNow()) return kj::mv(*received);
  return observer.whenBecomesReadable().then([this] { return receive(); });
}

kj::Maybe<PacketSocket::Received> PacketSocket::receiveNow() {
  iovec piece{buffer.begin(), buffer.size()};
  OneDescriptor control;
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (descriptors == Descriptors::TAKEN) {
    message.msg_control = &control;
    message.msg_controllen = sizeof(control);
  }
  // Without room for control data the kernel closes what comes along.
  ssize_t got;
  do {
    got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return nullptr;
  if (got <= 0) return Received(PacketsEnded{});
  kj::Maybe<kj::AutoCloseFd> received;
  if (descriptors == Descriptors::TAKEN) received = takeDescriptor(message);
  bool tooMuch = (message.msg_flags & MSG_TRUNC) != 0 ||
                 (descriptors == Descriptors::REFUSED && (message.msg_flags & MSG_CTRUNC) != 0);
  if (tooMuch) return Received(PacketTooMuch{});
  return Received(Packet{kj::heapArray(buffer.slice(0, size_t(got))), kj::mv(received)});
}

void PacketSocket::send(Packet packet) {
  outgoing.push_back(kj::mv(packet));
  sendNow();
}

void PacketSocket::sendNow() {
  if (waitsToSend) return;
  while (!outgoing.empty()) {
    if (trySend(fd, outgoing.front()) == Sending::BLOCKED) {
      waitsToSend = true;
      sending = sendWhenWritable().eagerlyEvaluate(nullptr);
      return;
    }
    outgoing.pop_front();
  }
}

kj::Promise<void> PacketSocket::sendWhenWritable() {
  return observer.whenBecomesWritable().then([this]() -> kj::Promise<void> {
    while (!outgoing.empty()) {
      if (trySend(fd, outgoing.front()) == Sending::BLOCKED) return sendWhenWritable();
      outgoing.pop_front();
    }
    waitsToSend = false;
    return kj::READY_NOW;
  });
}

}  // namespace postern::guest
