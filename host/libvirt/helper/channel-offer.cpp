#include "host/libvirt/helper/channel-offer.h"

#include <errno.h>
#include <kj/io.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "host/libvirt/helper/domain-xml.h"
#include "transport/endpoint.h"
#include "transport/unix-socket.h"

namespace postern::libvirt {

namespace {

kj::AutoCloseFd connectTo(kj::StringPtr path) {
  if (path.size() > MAX_SOCKET_PATH_BYTES) throw LibvirtFailure{kj::str(path, " is too long for a socket's path")};
  auto socket = newUnixSocket();
  auto address = unixAddress(path);
  if (socket.get() < 0 || ::connect(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)) != 0) {
    throw LibvirtFailure{kj::str("cannot connect to ", path, ": ", errorWords(errno))};
  }
  return socket;
}

}  // namespace

ChannelOffer::ChannelOffer(const Libvirt& libvirt, kj::StringPtr domain, int socket)
    : Follower(libvirt, domain, socket) {
  if (libvirt.find(domain).isActive()) offer();
}

void ChannelOffer::lifecycle(int event, int) {
  if (event == VIR_DOMAIN_EVENT_STOPPED) return end();
  if (event == VIR_DOMAIN_EVENT_STARTED && !offered) offer();
}

void ChannelOffer::offer() {
  offered = true;
  DomainXml xml(libvirt.find(domain).xml(Domain::Which::RUNNING));
  KJ_IF_MAYBE (path, xml.channelPath()) return pass(*path);
  KJ_IF_MAYBE (cid, xml.guestCid()) return say(kj::str("CID ", *cid, '\n'));
  throw LibvirtFailure{kj::str("domain ", domain,
                               " runs without a channel org.postern.agent.0 and without vsock; `postern "
                               "enroll ",
                               domain, " --libvirt` adds the channel, and a restart may be needed")};
}

void ChannelOffer::pass(kj::StringPtr path) {
  auto channel = connectTo(path);
  alignas(cmsghdr) char control[CMSG_SPACE(sizeof(int))];
  memset(control, 0, sizeof(control));
  char ok[] = "OK\n";
  iovec piece = {ok, 3};
  msghdr message{};
  message.msg_iov = &piece;
  message.msg_iovlen = 1;
  message.msg_control = control;
  message.msg_controllen = sizeof(control);
  auto* header = CMSG_FIRSTHDR(&message);
  header->cmsg_level = SOL_SOCKET;
  header->cmsg_type = SCM_RIGHTS;
  header->cmsg_len = CMSG_LEN(sizeof(int));
  int fd = channel.get();
  memcpy(CMSG_DATA(header), &fd, sizeof(fd));
  (void)sendmsg(socket, &message, MSG_NOSIGNAL);
  end();
}

}  // namespace postern::libvirt
