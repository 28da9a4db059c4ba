#include "transport/packet-socket.h"

#include <errno.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>

#include "transport/close-elsewhere.h"

namespace postern {

namespace {

union Control {
  cmsghdr header;
  char bytes[CMSG_SPACE(MAX_PACKET_DESCRIPTORS * sizeof(int))];
};

// The descriptors that came along. The kernel puts no more of them into a control message than have room, and says
// MSG_CTRUNC when it closed others.
kj::Vector<kj::AutoCloseFd> takeDescriptors(msghdr& message) {
  kj::Vector<kj::AutoCloseFd> result;
  auto* header = CMSG_FIRSTHDR(&message);
  if (header == nullptr || header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) return result;
  size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
  for (size_t i = 0; i < count; ++i) {
    int fd;
    memcpy(&fd, CMSG_DATA(header) + i * sizeof(fd), sizeof(fd));
    result.add(kj::AutoCloseFd(fd));
  }
  return result;
}

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
  Control control;
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  if (maxDescriptors > 0) {
    message.msg_control = &control;
    // Not CMSG_SPACE, whose padding would have room for one more.
    message.msg_controllen = CMSG_LEN(maxDescriptors * sizeof(int));
  }
  // Without room for control data the kernel closes what comes along.
  ssize_t got;
  do {
    got = recvmsg(fd, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    // The other end has closed with something unread: told once, and before what it had said itself.
  } while (got < 0 && (errno == EINTR || errno == ECONNRESET));
  if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) return nullptr;
  if (got < 0) return InBuffer(PacketsEnded{});
  kj::Vector<kj::AutoCloseFd> fds;
  if (maxDescriptors > 0) fds = takeDescriptors(message);
  bool lost = (message.msg_flags & MSG_CTRUNC) != 0;
  if (got == 0 || (message.msg_flags & MSG_TRUNC) != 0) {
    for (auto& one : fds) closeElsewhere(kj::mv(one));
  }
  if (got == 0) return InBuffer(PacketsEnded{});
  if ((message.msg_flags & MSG_TRUNC) != 0 || (maxDescriptors == 0 && lost)) return InBuffer(PacketTooMuch{});
  return InBuffer(PacketInBuffer{size_t(got), kj::mv(fds), lost});
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
