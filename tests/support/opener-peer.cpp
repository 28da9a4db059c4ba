#include "tests/support/opener-peer.h"

#include <errno.h>
#include <kj/debug.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

namespace postern::test {

using namespace transfer;

namespace {

bool mayBring(const ToMover& message) {
  if (message.is<Opened>()) return true;
  if (!message.is<Forward>() || !message.get<Forward>().is<Entry>()) return false;
  auto& entry = message.get<Forward>().get<Entry>();
  return entry.kind == EntryKind::FILE && !entry.inlined;
}

}  // namespace

SocketEnds newSocketEnds() {
  int ends[2];
  KJ_SYSCALL(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends));
  return {kj::AutoCloseFd(ends[0]), kj::AutoCloseFd(ends[1])};
}

OpenerPeer::OpenerPeer(kj::AutoCloseFd socket) : socket(kj::mv(socket)) {}

void OpenerPeer::gather(kj::ArrayPtr<const kj::byte> content) {
  auto bytes = frame.toArray(content);
  if (gathered.size() + bytes.size() > PACKET_FILL_BYTES && gathered.size() > 0) {
    packets.push_back(gathered.releaseAsArray());
    gathered = kj::Vector<kj::byte>();
  }
  gathered.addAll(bytes);
}

void OpenerPeer::send(const Forward& message, kj::ArrayPtr<const kj::byte> content) {
  write(message, frame.init<schema::ToOpener>().initForward());
  gather(content);
}
void OpenerPeer::send(const Backward& message) {
  write(message, frame.init<schema::ToOpener>().initBackward());
  gather();
}
void OpenerPeer::send(const Commit& message) {
  write(message, frame.init<schema::ToOpener>().initCommit());
  gather();
}
void OpenerPeer::sendSent(uint64_t bytes) {
  frame.init<schema::ToOpener>().setSent(bytes);
  gather();
}
void OpenerPeer::sendRaw(kj::ArrayPtr<const kj::byte> packet) {
  if (gathered.size() > 0) packets.push_back(gathered.releaseAsArray());
  gathered = kj::Vector<kj::byte>();
  packets.push_back(kj::heapArray(packet));
}

void OpenerPeer::flush() {
  if (gathered.size() > 0) packets.push_back(gathered.releaseAsArray());
  gathered = kj::Vector<kj::byte>();
  while (!packets.empty()) {
    ssize_t n = ::send(socket, packets.front().begin(), packets.front().size(), MSG_DONTWAIT | MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && (errno == EAGAIN || errno == ENOBUFS)) return;
    packets.pop_front();  // gone, or nobody wants it
  }
}

void OpenerPeer::readPacket() {
  alignas(8) static thread_local kj::byte bytes[MAX_PACKET_BYTES + 8];
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * 8)];
  iovec part = {bytes, sizeof(bytes)};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  ssize_t n = recvmsg(socket, &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (n <= 0) {
    closed = true;
    return;
  }
  kj::Vector<kj::AutoCloseFd> descriptors;
  for (cmsghdr* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int fd;
      memcpy(&fd, CMSG_DATA(header) + i * sizeof(int), sizeof(int));
      descriptors.add(kj::AutoCloseFd(fd));
    }
  }
  kj::ArrayPtr<const kj::byte> rest(bytes, static_cast<size_t>(n));
  FrameReader reader;
  while (rest.size() > 0) {
    auto next = KJ_ASSERT_NONNULL(reader.next(rest), "an opener's packet ends within a frame");
    KJ_ASSERT(next.is<FrameView*>(), next.get<FrameError>().rule);
    auto& view = *next.get<FrameView*>();
    auto parsed = parseToMover(view);
    KJ_ASSERT(parsed.is<ToMover>(), parsed.get<FrameError>().rule);
    Message got{kj::mv(parsed.get<ToMover>()), kj::heapArray(view.content()), {}};
    if (mayBring(got.message)) got.descriptors = kj::mv(descriptors);
    received.push_back(kj::mv(got));
  }
}

kj::Maybe<OpenerPeer::Message> OpenerPeer::receiveNow() {
  if (received.empty() && !closed) readPacket();
  if (received.empty()) return nullptr;
  auto message = kj::mv(received.front());
  received.pop_front();
  return kj::mv(message);
}

kj::Maybe<OpenerPeer::Message> OpenerPeer::receive() {
  for (;;) {
    flush();
    KJ_IF_MAYBE (message, receiveNow()) return kj::mv(*message);
    if (closed) return nullptr;
    pollfd one = {socket, static_cast<short>(hasUnsent() ? POLLIN | POLLOUT : POLLIN), 0};
    poll(&one, 1, -1);
  }
}

}  // namespace postern::test
