#include "host/daemon/passed-socket.h"

#include <errno.h>
#include <fcntl.h>
#include <kj/vector.h>
#include <sys/socket.h>
#include <systemd/sd-daemon.h>

#include "transport/connection.h"

namespace postern::host {

kj::OneOf<kj::AutoCloseFd, NoSocketPassed, FileError> takePassedSocket(kj::StringPtr path) {
  int count = sd_listen_fds(1);
  if (count == 0) return NoSocketPassed();
  if (count < 0) return FileError{kj::str("the service manager's LISTEN_FDS: ", errorWords(-count))};
  kj::Vector<kj::AutoCloseFd> passed;
  for (int i = 0; i < count; ++i) passed.add(kj::AutoCloseFd(SD_LISTEN_FDS_START + i));
  if (count > 1) return FileError{kj::str("the service manager passed ", count, " descriptors; one is the socket")};
  auto& fd = passed[0];
  if (sd_is_socket_unix(fd, SOCK_STREAM, 1, path.cStr(), 0) <= 0) {
    return FileError{kj::str("the service manager passed what is no listening socket at ", path)};
  }
  int flags = fcntl(fd, F_GETFL);
  if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) != 0) {
    return FileError{kj::str(path, ": cannot use the socket that the service manager passed: ", errorWords(errno))};
  }
  return kj::mv(fd);
}

}  // namespace postern::host
