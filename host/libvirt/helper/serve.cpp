#include "host/libvirt/helper/serve.h"

#include <errno.h>
#include <kj/debug.h>
#include <kj/time.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "host/daemon/damper.h"
#include "host/libvirt/door.h"
#include "host/libvirt/helper/channel-offer.h"
#include "host/libvirt/helper/monitor.h"
#include "host/log/log.h"
#include "transport/printable.h"
#include "transport/unix-socket.h"

namespace postern::libvirt {

namespace {

using host::logEvent;
using host::LogLevel;

constexpr timeval REQUEST_DEADLINE = {5, 0};
constexpr int BACKLOG = 128;
// With the words around it.
constexpr size_t MAX_ERROR_BYTES = host::MAX_DOOR_LINE_BYTES - 16;
// Lines about a user who may not ask.
constexpr unsigned TURNED_AWAY_BURST = 10;
constexpr unsigned TURNED_AWAY_PER_MINUTE = 1;

// Blocking; who may connect is asked of the kernel for each that does.
kj::AutoCloseFd listenAt(kj::StringPtr path) {
  kj::AutoCloseFd listening(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  auto address = unixAddress(path);
  auto* plain = reinterpret_cast<sockaddr*>(&address);
  if (connect(listening, plain, sizeof(address)) == 0) {
    throw LibvirtFailure{kj::str(path, ": another postern-libvirt listens there")};
  }
  unlink(path.cStr());
  auto before = umask(0);
  int bound = bind(listening, plain, sizeof(address));
  int error = errno;
  umask(before);
  if (bound != 0 || listen(listening, BACKLOG) != 0) {
    throw LibvirtFailure{kj::str("cannot listen at ", path, ": ", errorWords(bound != 0 ? error : errno))};
  }
  return listening;
}

bool mayAsk(uid_t uid, const Service& service) {
  return uid == 0 || uid == geteuid() || uid == service.user;
}

kj::Maybe<kj::String> readRequest(int socket) {
  setsockopt(socket, SOL_SOCKET, SO_RCVTIMEO, &REQUEST_DEADLINE, sizeof(REQUEST_DEADLINE));
  kj::Vector<char> line;
  while (line.size() < host::MAX_DOOR_LINE_BYTES) {
    char byte;
    if (recv(socket, &byte, 1, 0) != 1) return nullptr;
    if (byte == '\n') return kj::heapString(line.asPtr());
    line.add(byte);
  }
  return nullptr;
}

void follow(kj::StringPtr uri, kj::StringPtr untrustedRequest, int socket) {
  if (untrustedRequest.startsWith("monitor ")) {
    Libvirt libvirt(uri);
    return Monitor(libvirt, untrustedRequest.slice(8), socket).run();
  }
  if (untrustedRequest.startsWith("channel ")) {
    Libvirt libvirt(uri);
    return ChannelOffer(libvirt, untrustedRequest.slice(8), socket).run();
  }
  throw LibvirtFailure{kj::str("not a request")};
}

void converse(kj::StringPtr uri, int socket) {
  KJ_IF_MAYBE (request, readRequest(socket)) {
    try {
      follow(uri, *request, socket);
    } catch (LibvirtFailure& failure) {
      auto line = kj::str("ERROR ", printable(failure.text, MAX_ERROR_BYTES), '\n');
      (void)send(socket, line.begin(), line.size(), MSG_NOSIGNAL);
    }
  }
}

// Does not return in the new process.
void startConversation(const Service& service, kj::AutoCloseFd connection, pid_t parent) {
  auto pid = fork();
  if (pid < 0) logEvent(LogLevel::ERROR, "fork-failed", errorWords(errno));
  if (pid != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() == parent) converse(service.uri, connection);
  _exit(0);
}

void turnAway(uid_t uid, host::Damper& lines) {
  KJ_IF_MAYBE (leftOut, lines.take(kj::str(uid))) {
    logEvent(LogLevel::WARNING, "turned-away", kj::str("uid ", uid, " is not posternd's", host::untold(*leftOut)));
  }
}

}  // namespace

int serve(const Service& service) {
  host::Damper turnedAway(kj::systemPreciseMonotonicClock(), TURNED_AWAY_BURST, TURNED_AWAY_PER_MINUTE);
  auto listening = listenAt(service.socket);
  signal(SIGCHLD, SIG_IGN);  // the kernel reaps
  logEvent(LogLevel::INFO, "ready", kj::str("postern-libvirt for ", service.uri, " at ", service.socket));
  sd_notify(0, "READY=1");
  auto parent = getpid();
  for (;;) {
    kj::AutoCloseFd connection(accept4(listening, nullptr, nullptr, SOCK_CLOEXEC));
    if (connection == nullptr) {
      if (errno == EINTR || errno == ECONNABORTED) continue;
      logEvent(LogLevel::ERROR, "accept-failed", errorWords(errno));
      sleep(1);
      continue;
    }
    auto peer = unixPeer(connection);
    if (mayAsk(peer.uid, service)) {
      startConversation(service, kj::mv(connection), parent);
    } else {
      turnAway(peer.uid, turnedAway);
    }
  }
}

}  // namespace postern::libvirt
