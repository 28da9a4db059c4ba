#include "transport/unix-listener.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transport/accept-queue.h"
#include "transport/receive.h"
#include "transport/unix-socket.h"

namespace postern {

namespace {

TransportError cannotListen(kj::StringPtr path, kj::StringPtr why) {
  return transportError("cannot listen on ", path, ": ", why);
}

kj::String folderOf(kj::StringPtr path) {
  size_t slash = KJ_ASSERT_NONNULL(path.findLast('/'));
  return kj::heapString(path.slice(0, kj::max(slash, size_t(1))));
}

// The file of a listening socket, which goes when the listener goes, unless another has taken the name by then.
class SocketFile {
 public:
  explicit SocketFile(kj::StringPtr path) : path(kj::str(path)) {
    int result = lstat(this->path.cStr(), &made);
    KJ_REQUIRE(result == 0, "a socket's file vanished while it was made", path);
  }
  ~SocketFile() noexcept(false) {
    struct stat now;
    if (lstat(path.cStr(), &now) == 0 && now.st_dev == made.st_dev && now.st_ino == made.st_ino) unlink(path.cStr());
  }
  KJ_DISALLOW_COPY(SocketFile);

 private:
  kj::String path;
  struct stat made;
};

// Held while a name is looked at, freed and taken, so that of two starting processes none removes the other's new
// socket. On the folder itself, since a lock's own file would stay behind.
kj::OneOf<kj::AutoCloseFd, TransportError> lockFolder(kj::StringPtr path) {
  auto folder = folderOf(path);
  kj::AutoCloseFd fd(open(folder.cStr(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd.get() < 0) {
    int error = errno;
    return cannotListen(path, kj::str("its folder ", folder, " cannot be opened (", errorWords(error),
                                      "); make it, with mode 0700 and this process's user as its owner"));
  }
  if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
    return cannotListen(path, kj::str("another process has locked its folder ", folder, "; try again"));
  }
  return kj::mv(fd);
}

// Frees the name from a socket whose listener is dead.
kj::Maybe<TransportError> removeStale(kj::StringPtr path) {
  struct stat info;
  if (lstat(path.cStr(), &info) < 0) return nullptr;  // gone meanwhile
  if (!S_ISSOCK(info.st_mode)) {
    return cannotListen(path, "a file that is no socket has this name; remove it or choose another name");
  }
  auto address = unixAddress(path);
  auto probe = newUnixSocket();  // without one, connect() says so
  int result = ::connect(probe, reinterpret_cast<sockaddr*>(&address), sizeof(address));
  int error = result < 0 ? errno : 0;
  if (error == 0 || error == EAGAIN) {
    return cannotListen(path, "it is in use: another process listens there; stop it or choose another name");
  }
  if (error != ECONNREFUSED && error != ENOENT) {
    return cannotListen(path, kj::str("whether the socket there is in use cannot be told (", errorWords(error),
                                      "); remove it if nobody uses it"));
  }
  if (unlink(path.cStr()) < 0 && errno != ENOENT) {
    int unlinkError = errno;
    return cannotListen(path, kj::str("the dead socket there cannot be removed (", errorWords(unlinkError), ")"));
  }
  return nullptr;
}

// The file has at most this mode from its first moment: on Linux it is the socket's own inode's, without the umask.
// T34
kj::Maybe<TransportError> takeName(int socket, kj::StringPtr path, const UnixName& name) {
  KJ_SYSCALL(fchmod(socket, name.mode));
  auto address = unixAddress(path);
  auto bind = [&] { return ::bind(socket, reinterpret_cast<sockaddr*>(&address), sizeof(address)); };
  int result = bind();
  if (result < 0 && errno == EADDRINUSE) {
    KJ_IF_MAYBE (error, removeStale(path)) return kj::mv(*error);
    result = bind();
  }
  if (result < 0) {
    int error = errno;
    return cannotListen(path, kj::str(errorWords(error), "; may this process's user write in the folder?"));
  }
  return nullptr;
}

// What the umask took away is added, whatever has been put in the file's place meanwhile: of a socket, by a handle of
// it.
kj::Maybe<TransportError> giveMode(kj::StringPtr path, mode_t mode) {
  kj::AutoCloseFd file(open(path.cStr(), O_PATH | O_NOFOLLOW | O_CLOEXEC));
  struct stat info;
  bool made = file.get() >= 0 && fstat(file, &info) == 0 && S_ISSOCK(info.st_mode);
  if (made && (info.st_mode & 07777) == mode) return nullptr;
  if (made && chmod(kj::str("/proc/self/fd/", file.get()).cStr(), mode) == 0) return nullptr;
  int error = errno;
  unlink(path.cStr());
  return cannotListen(path, kj::str("its mode cannot be set (", errorWords(error), ")"));
}

kj::Maybe<TransportError> giveOwner(kj::StringPtr path, uid_t uid) {
  if (lchown(path.cStr(), uid, gid_t(-1)) == 0) return nullptr;
  int error = errno;
  unlink(path.cStr());
  return cannotListen(
      path, kj::str("it cannot be given to user ", uid, " (", errorWords(error), "); that needs root or CAP_CHOWN"));
}

// T34
AcceptQueue::Examine examineBy(TransportKind transport, ListenOptions options) {
  return [transport, own = geteuid(), options](StrangersFd fd) -> kj::Maybe<Connection> {
    auto peer = unixPeer(fd);
    bool known = peer.uid == own || peer.uid == 0;
    KJ_IF_MAYBE (other, options.peerUid) known = known || peer.uid == *other;
    if (!known) return nullptr;
    return Connection{transport, DescriptorKind::SOCKET, peer, kj::mv(fd)};
  };
}

}  // namespace

kj::OneOf<kj::AutoCloseFd, TransportError> listenOnName(kj::StringPtr path, const UnixName& name) {
  auto lock = lockFolder(path);
  KJ_IF_MAYBE (error, lock.tryGet<TransportError>()) return kj::mv(*error);
  auto socket = newUnixSocket();
  if (socket.get() < 0) {
    int error = errno;
    return cannotListen(path, errorWords(error));
  }
  KJ_IF_MAYBE (error, takeName(socket, path, name)) return kj::mv(*error);
  KJ_IF_MAYBE (error, giveMode(path, name.mode)) return kj::mv(*error);
  KJ_IF_MAYBE (uid, name.owner) {
    KJ_IF_MAYBE (error, giveOwner(path, *uid)) return kj::mv(*error);
  }
  refuseDescriptors(socket);
  KJ_SYSCALL(::listen(socket, LISTEN_QUEUE));
  return kj::mv(socket);
}

void removeDeadName(kj::StringPtr path) {
  auto lock = lockFolder(path);
  if (lock.is<kj::AutoCloseFd>()) removeStale(path);
}

Listening listenUnix(kj::UnixEventPort& port, kj::Timer& timer, TransportKind transport, kj::StringPtr path,
                     ListenOptions options) {
  auto listening = listenOnName(path, UnixName{0600, options.peerUid});
  KJ_IF_MAYBE (error, listening.tryGet<TransportError>()) return kj::mv(*error);
  auto file = kj::heap<SocketFile>(path);
  return kj::Own<Listener>(kj::heap<AcceptQueue>(port, timer, kj::mv(listening.get<kj::AutoCloseFd>()),
                                                 examineBy(transport, options), kj::mv(file)));
}

}  // namespace postern
