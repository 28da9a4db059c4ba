#include "host/daemon/control-server.h"

#include <errno.h>
#include <kj/debug.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "host/daemon/control-calls.h"
#include "host/log/log.h"
#include "transport/connection.h"
#include "transport/receive.h"

namespace postern::host {

ControlServer::ControlServer(Daemon& daemon, kj::AsyncIoContext& io, kj::AutoCloseFd listeningParam)
    : daemon(daemon),
      io(io),
      listening(kj::mv(listeningParam)),
      observer(io.unixEventPort, listening, kj::UnixEventPort::FdObserver::OBSERVE_READ),
      tasks(*this),
      accepting(kj::evalLater([this]() { return acceptAll(); }).eagerlyEvaluate([](kj::Exception&& e) {
        logEvent(LogLevel::ERROR, "control-socket-failed", e.getDescription());
      })) {}

ControlServer::~ControlServer() noexcept(false) {}

kj::Promise<void> ControlServer::acceptAll() {
  int fd = accept4(listening, nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK);
  if (fd >= 0) {
    KJ_IF_MAYBE (exception, kj::runCatchingExceptions([&]() { serve(kj::AutoCloseFd(fd)); })) {
      // Want of memory or of descriptors ends this one caller's connection, and not the service.
      logEvent(LogLevel::ERROR, "caller-lost", exception->getDescription());
    }
    return kj::evalLast([this]() { return acceptAll(); });
  }
  if (errno == EAGAIN || errno == EWOULDBLOCK) {
    return observer.whenBecomesReadable().then([this]() { return acceptAll(); });
  }
  // Out of descriptors or memory, or a caller that gave up.
  return daemon.timer().afterDelay(ACCEPT_PAUSE).then([this]() { return acceptAll(); });
}

void ControlServer::serve(StrangersFd socket) {
  auto uid = localPeerOf(socket).uid;
  auto& user = *users.findOrCreate(uid, [&]() {
    return kj::HashMap<uid_t, kj::Own<User>>::Entry{uid, kj::heap<User>(daemon.timer())};
  });
  // Many users together do not lock out who could end it.
  bool isAdministrator = uid == 0 || uid == geteuid();
  if (user.connections >= MAX_CONNECTIONS_PER_USER) return;  // closed
  if (connections >= MAX_CONNECTIONS && !isAdministrator) return;
  auto rpc = kj::heap<LocalRpc>(*io.lowLevelProvider, socket.release(),
                                newControl(daemon, user.bucket, daemon.localCallers().find(uid)), CONTROL_MESSAGE_WORDS,
                                CALLER_FLOW_WORDS);
  daemon.metrics().controlConnections = ++connections;
  ++user.connections;
  auto over = rpc->onDisconnect();
  tasks.add(over.attach(kj::mv(rpc)).then([this, uid]() { leave(uid); }, [this, uid](kj::Exception&&) { leave(uid); }));
}

void ControlServer::leave(uid_t uid) {
  daemon.metrics().controlConnections = --connections;
  KJ_IF_MAYBE (user, users.find(uid)) --(*user)->connections;
}

void ControlServer::taskFailed(kj::Exception&& exception) {
  logEvent(LogLevel::ERROR, "internal", exception.getDescription());
}

kj::OneOf<kj::AutoCloseFd, FileError> listenForCallers(kj::StringPtr path, kj::Maybe<gid_t> group) {
  struct sockaddr_un address {};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path)) {
    return FileError{kj::str(path, ": too long for a socket; use a shorter --root")};
  }
  memcpy(address.sun_path, path.begin(), path.size());
  auto failed = [&](kj::StringPtr what) {
    return FileError{kj::str(path, ": cannot ", what, ": ", errorWords(errno))};
  };
  kj::AutoCloseFd fd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (fd == nullptr) return failed("make a socket");
  if (unlink(path.cStr()) != 0 && errno != ENOENT) return failed("replace it");
  refuseDescriptors(fd);
  // Nobody gets in before mode and group are right.
  fchmod(fd, 0600);
  auto before = umask(0177);
  int bound = bind(fd, reinterpret_cast<struct sockaddr*>(&address), sizeof(address));
  umask(before);
  if (bound != 0) return failed("bind it");
  KJ_IF_MAYBE (g, group) {
    if (chown(path.cStr(), static_cast<uid_t>(-1), *g) != 0) return failed("give it to its group");
  }
  if (chmod(path.cStr(), 0660) != 0) return failed("set its mode");
  if (listen(fd, 128) != 0) return failed("listen on it");
  return kj::mv(fd);
}

}  // namespace postern::host
