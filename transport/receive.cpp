#include "transport/receive.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

namespace postern {

namespace {

union Control {
  cmsghdr header;
  char bytes[CMSG_SPACE(MAX_ATTACHED_DESCRIPTORS * sizeof(int))];
};

void takeDescriptors(msghdr& message, size_t wanted, Received& to) {
  for (auto* header = CMSG_FIRSTHDR(&message); header != nullptr; header = CMSG_NXTHDR(&message, header)) {
    if (header->cmsg_level != SOL_SOCKET || header->cmsg_type != SCM_RIGHTS) continue;
    size_t count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (size_t i = 0; i < count; ++i) {
      int raw;
      memcpy(&raw, CMSG_DATA(header) + i * sizeof(raw), sizeof(raw));
      kj::AutoCloseFd fd(raw);
      if (to.fds.size() < wanted) {
        to.fds.add(kj::mv(fd));
      } else {
        closeElsewhere(kj::mv(fd));
        to.broughtMore = true;
      }
    }
  }
}

}  // namespace

// T92
Received receive(int socket, kj::ArrayPtr<iovec> pieces, int flags, size_t wantedDescriptors) {
  Control control;
  msghdr message{};
  ssize_t got;
  do {
    message.msg_iov = pieces.begin();
    message.msg_iovlen = pieces.size();
    if ((flags & MSG_PEEK) == 0) {
      message.msg_control = &control;
      message.msg_controllen = sizeof(control);
    }
    got = recvmsg(socket, &message, flags | MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  Received result{got, false, false, {}};
  if (got < 0) return result;
  result.isCut = (message.msg_flags & MSG_TRUNC) != 0;
  result.broughtMore = (message.msg_flags & MSG_CTRUNC) != 0;
  if (message.msg_controllen > 0) takeDescriptors(message, wantedDescriptors, result);
  return result;
}

ssize_t receiveBytes(int socket, kj::ArrayPtr<kj::byte> space) {
  iovec piece{space.begin(), space.size()};
  return receive(socket, kj::arrayPtr(&piece, 1)).bytes;
}

void refuseDescriptors(int socket) {
  int off = 0;
  setsockopt(socket, SOL_SOCKET, PASS_RIGHTS, &off, sizeof(off));
}

}  // namespace postern
