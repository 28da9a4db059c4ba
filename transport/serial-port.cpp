#include "transport/serial-port.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/debug.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "transport/connector.h"

namespace postern {

namespace {

TransportError notAPort(kj::StringPtr path, kj::StringPtr what) {
  return transportError("cannot use ", path, " as a serial port: it is ", what,
                        "; in a guest name the device, such as /dev/virtio-ports/org.postern.agent.0, on the host the "
                        "socket of the VM's chardev");
}

// 0, or why the event loop could not watch it: EPERM says that the device has no readiness.
int watchError(int fd) {
  kj::AutoCloseFd epoll(epoll_create1(EPOLL_CLOEXEC));
  if (epoll.get() < 0) return errno;
  epoll_event event{};
  event.events = EPOLLIN | EPOLLET;
  return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) == 0 ? 0 : errno;
}

Connected openDevice(kj::StringPtr path) {
  kj::AutoCloseFd fd(open(path.cStr(), O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY));
  if (fd.get() < 0) {
    int error = errno;
    return serialError(path, error);
  }
  if (isatty(fd)) return notAPort(path, "a terminal");
  int error = watchError(fd);
  if (error == EPERM) return notAPort(path, "another kind of device");
  if (error != 0) return serialError(path, error);
  return Connection{TransportKind::SERIAL, DescriptorKind::SERIAL_DEVICE, UnknownPeer(), kj::mv(fd)};
}

}  // namespace

TransportError serialError(kj::StringPtr path, int error) {
  switch (error) {
    case EBUSY:
      return transportError("cannot open ", path,
                            ": another process has the port open; `postern-agent doctor` or `fuser -v ", path,
                            "` names it, end it first");
    case ENOENT:
      return transportError("cannot open ", path,
                            ": there is no such port; give the VM a virtserialport of this name, and in the guest load "
                            "the module virtio_console; on the host, is the VM running?");
    case EACCES:
    case EPERM:
      return transportError(
          "cannot open ", path,
          ": permission denied; this process's user needs read and write permission on it, and AppArmor or "
          "SELinux, if it confines the process, has to allow it");
    case ENODEV:
    case ENXIO:
      return transportError("cannot open ", path, ": the port has gone; was it unplugged?");
    default:
      return transportError("cannot open ", path, ": ", errorWords(error));
  }
}

kj::Promise<Connected> openSerial(kj::Timer& timer, kj::StringPtr path, kj::Duration timeout) {
  struct stat info;
  if (stat(path.cStr(), &info) < 0) {
    int error = errno;
    return Connected(serialError(path, error));
  }
  if (S_ISSOCK(info.st_mode)) return connectUnix(timer, TransportKind::SERIAL, path, timeout);
  if (S_ISCHR(info.st_mode)) return openDevice(path);
  return Connected(notAPort(path, S_ISDIR(info.st_mode) ? "a folder"_kj : "neither a socket nor a device"_kj));
}

}  // namespace postern
