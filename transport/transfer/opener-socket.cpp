#include "transport/transfer/opener-socket.h"

#include <errno.h>
#include <kj/debug.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

namespace postern::transfer {

namespace {

constexpr size_t MAX_DESCRIPTORS = 2;

constexpr size_t PACKET_WORDS = (MAX_PACKET_BYTES + sizeof(capnp::word) - 1) / sizeof(capnp::word);

kj::Duration monotonic() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * kj::SECONDS + now.tv_nsec * kj::NANOSECONDS;
}

// poll() that signals do not end; null waits for ever. What is ready, 0 when `limit` has passed.
short pollFor(int socket, short events, kj::Maybe<kj::Duration> limit) {
  kj::Maybe<kj::Duration> end;
  KJ_IF_MAYBE (l, limit) end = monotonic() + *l;
  for (;;) {
    int wait = -1;
    KJ_IF_MAYBE (e, end) {
      int64_t left = (*e - monotonic() + 999 * kj::MICROSECONDS) / kj::MILLISECONDS;
      wait = static_cast<int>(kj::max(int64_t(0), kj::min(left, int64_t(1) << 30)));
    }
    pollfd one = {socket, events, 0};
    int n = poll(&one, 1, wait);
    if (n > 0) return one.revents;
    if (n == 0 && wait < (1 << 30)) return 0;
    if (n < 0 && errno != EINTR) KJ_FAIL_SYSCALL("poll", errno);
  }
}

}  // namespace

OpenerSocket::OpenerSocket(kj::AutoCloseFd socket)
    : socket(kj::mv(socket)),
      outgoingWords(kj::heapArray<capnp::word>(PACKET_WORDS)),
      incomingWords(kj::heapArray<capnp::word>(PACKET_WORDS)),
      outgoing(outgoingWords.asPtr().asBytes()),
      incoming(incomingWords.asPtr().asBytes()) {}

bool OpenerSocket::put(FrameBuilder& frame, kj::ArrayPtr<const kj::byte> content, kj::ArrayPtr<const int> descriptors) {
  KJ_REQUIRE(descriptors.size() <= MAX_DESCRIPTORS, "more descriptors than a frame may bring");
  size_t bytes = frame.bytes(content.size());
  bool inPlace = content.begin() != nullptr && content.begin() == outgoing.begin() + filled + frame.contentOffset();
  if (filled + bytes > outgoing.size() && !flush()) return false;
  if (gone) return false;
  auto space = outgoing.slice(filled, outgoing.size());
  filled += inPlace ? frame.close(space, content.size()) : frame.put(space, content);
  if (descriptors.size() == 0 && filled < PACKET_FILL_BYTES) return true;
  return send(descriptors);
}

kj::ArrayPtr<kj::byte> OpenerSocket::contentSpace(FrameBuilder& frame, size_t contentBytes) {
  // A mover that has gone is told by the put() that follows.
  if (filled + frame.bytes(contentBytes) > outgoing.size() && !flush()) filled = 0;
  size_t begin = filled + frame.contentOffset();
  return outgoing.slice(begin, begin + contentBytes);
}

bool OpenerSocket::flush() {
  if (gone) return false;
  return filled == 0 || send(nullptr);
}

bool OpenerSocket::send(kj::ArrayPtr<const int> descriptors) {
  iovec bytes = {outgoing.begin(), filled};
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int) * MAX_DESCRIPTORS)] = {};
  msghdr message{};
  message.msg_iov = &bytes;
  message.msg_iovlen = 1;
  if (descriptors.size() > 0) {
    message.msg_control = control;
    message.msg_controllen = CMSG_SPACE(sizeof(int) * descriptors.size());
    cmsghdr* header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int) * descriptors.size());
    memcpy(CMSG_DATA(header), descriptors.begin(), sizeof(int) * descriptors.size());
  }
  filled = 0;
  for (;;) {
    if (sendmsg(socket, &message, MSG_DONTWAIT | MSG_NOSIGNAL) >= 0) return true;
    if (errno == EINTR) continue;
    if (errno == ETOOMANYREFS) {
      // More descriptors are on the way than this user may have open: until the mover has taken some.
      poll(nullptr, 0, 1);
      continue;
    }
    if ((errno == EAGAIN || errno == ENOBUFS) && awaitRoom()) continue;
    gone = true;
    return false;
  }
}

bool OpenerSocket::awaitRoom() {
  for (;;) {
    bool listens = blocked != nullptr;
    short ready = pollFor(socket, listens ? POLLIN | POLLOUT : POLLOUT, nullptr);
    if ((ready & POLLIN) != 0) {
      KJ_IF_MAYBE (takeAll, blocked) {
        if (!(*takeAll)()) return false;
      }
    }
    if ((ready & (POLLHUP | POLLERR)) != 0) return false;
    if ((ready & POLLOUT) != 0) return true;
  }
}

bool OpenerSocket::receive(kj::Maybe<kj::Duration> limit) {
  if (rest.size() > 0 || truncated) return true;
  bool waited = false;
  for (;;) {
    iovec bytes = {incoming.begin(), incoming.size()};
    msghdr message{};
    message.msg_iov = &bytes;
    message.msg_iovlen = 1;
    ssize_t n = recvmsg(socket, &message, MSG_DONTWAIT);
    if (n > 0) {
      truncated = (message.msg_flags & MSG_TRUNC) != 0;
      rest = incoming.slice(0, static_cast<size_t>(n));
      return true;
    }
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      if (waited && limit != nullptr) return false;
      KJ_IF_MAYBE (l, limit) {
        if (*l == 0 * kj::SECONDS) return false;
      }
      if (pollFor(socket, POLLIN, limit) == 0) return false;
      waited = true;
      continue;
    }
    gone = true;
    return true;
  }
}

kj::Maybe<kj::OneOf<FrameView*, FrameError, MoverGone>> OpenerSocket::next(kj::Maybe<kj::Duration> limit) {
  using Next = kj::OneOf<FrameView*, FrameError, MoverGone>;
  if (!receive(limit)) return nullptr;
  if (truncated) return Next(FrameError{"a packet is longer than any may be"});
  if (rest.size() == 0) return Next(MoverGone());
  auto frame = reader.next(rest);
  KJ_IF_MAYBE (f, frame) {
    if (f->is<FrameError>()) return Next(f->get<FrameError>());
    return Next(f->get<FrameView*>());
  }
  return Next(FrameError{"a packet ends within a frame"});
}

bool OpenerSocket::hasNext() {
  return receive(0 * kj::SECONDS);
}

}  // namespace postern::transfer
