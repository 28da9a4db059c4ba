#include "guest-agent/identity/stored-identity.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "protocol/state-file.h"
#include "transport/connection.h"

namespace postern::guest {

namespace {

IdentityTrouble trouble(IdentityTrouble::Why why, kj::StringPtr path, kj::StringPtr words) {
  return IdentityTrouble{why, kj::str(path, ": ", words)};
}

}  // namespace

kj::OneOf<kj::Own<GuestState>, NoIdentity, IdentityTrouble> readStoredIdentity(const Paths& paths) {
  using Why = IdentityTrouble::Why;
  auto& path = paths.stateFile;
  int fd = open(path.cStr(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) {
    int error = errno;
    if (error == ENOENT) return NoIdentity();
    return trouble(Why::UNREADABLE, path, errorWords(error));
  }
  kj::AutoCloseFd owned(fd);
  struct stat info;
  auto owner = fstat(fd, &info) == 0 ? info.st_uid : geteuid();
  auto opened = StateFile::open(kj::mv(owned), owner);
  KJ_IF_MAYBE (error, opened.tryGet<StateFileError>()) return trouble(Why::UNUSABLE, path, describe(*error));
  KJ_IF_MAYBE (stored, opened.get<StateFile>().state()) {
    if (stored->size() == 0) return NoIdentity();
    auto decoded = decodeGuestState(*stored);
    KJ_IF_MAYBE (error, decoded.tryGet<IdentityError>()) return trouble(Why::UNUSABLE, path, describe(*error));
    return kj::mv(decoded.get<kj::Own<GuestState>>());
  }
  return NoIdentity();
}

}  // namespace postern::guest
