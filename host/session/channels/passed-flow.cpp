#include "host/session/channels/passed-flow.h"

#include <sys/socket.h>

#include "host/local-rpc/local-rpc.h"

namespace postern::host {

namespace {

// By the socket's type: a program's stream, or the way to another session.
kj::Maybe<kj::Own<RelayEnd>> newEnd(kj::UnixEventPort& port, kj::AutoCloseFd socket) {
  if (socket == nullptr) return nullptr;
  if (isStreamSocket(socket)) return newSocketEnd(port, kj::mv(socket));
  int type = 0;
  socklen_t size = sizeof(type);
  bool isHop = getsockopt(socket, SOL_SOCKET, SO_TYPE, &type, &size) == 0 && type == SOCK_SEQPACKET;
  if (!isHop) return nullptr;
  return newHopEnd(port, kj::mv(socket));
}

}  // namespace

kj::Promise<kj::AutoCloseFd> takeSocket(kj::Maybe<schema::Descriptor::Client> descriptor) {
  KJ_IF_MAYBE (d, descriptor) {
    return takeDescriptor(kj::mv(*d)).then([](kj::Maybe<kj::AutoCloseFd> taken) -> kj::AutoCloseFd {
      KJ_IF_MAYBE (fd, taken) return kj::mv(*fd);
      return nullptr;
    });
  }
  return kj::AutoCloseFd();
}

kj::Promise<kj::AutoCloseFd> takeMirrorSocket(schema::Mirror::Reader mirror) {
  kj::Maybe<schema::Descriptor::Client> socket;
  if (mirror.hasSocket()) socket = mirror.getSocket();
  return takeSocket(kj::mv(socket));
}

MirroredChannel::Terms mirrorTerms(kj::UnixEventPort& port, schema::Mirror::Reader mirror, kj::AutoCloseFd socket) {
  return {kj::refcounted<Mirror>(port, kj::mv(socket)), mirror.getFull(), kj::str(mirror.getWho()),
          kj::str(mirror.getTo()), kj::str(mirror.getTerms())};
}

kj::Promise<PassedFlow> takeFlow(ChannelBook& book, schema::Flow::Reader flow) {
  PassedFlow taken;
  auto& limits = book.portLimits();
  if (flow.hasPort()) limits.setPort(flow.getPort());
  kj::StringPtr rule = flow.getRule();
  if (rule.size() > 0) taken.rule = PassedRule{kj::str(rule), limits.setRule(rule, flow.getLimit())};
  return takeMirrorSocket(flow.getMirror()).then([&book, flow, taken = kj::mv(taken)](kj::AutoCloseFd mirror) mutable {
    if (flow.hasMirror()) taken.mirror = mirrorTerms(book.eventPort(), flow.getMirror(), kj::mv(mirror));
    return kj::mv(taken);
  });
}

kj::Promise<kj::Maybe<kj::Own<RelayEnd>>> takeEnd(kj::UnixEventPort& port,
                                                  kj::Maybe<schema::Descriptor::Client> socket) {
  return takeSocket(kj::mv(socket)).then([&port](kj::AutoCloseFd passed) { return newEnd(port, kj::mv(passed)); });
}

}  // namespace postern::host
