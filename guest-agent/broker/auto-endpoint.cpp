#include "guest-agent/broker/auto-endpoint.h"

#include <errno.h>
#include <sys/stat.h>

namespace postern::guest {

namespace {

// Through symbolic links, as udev makes them. What SELinux hides counts as one: who opens it says what is wrong.
bool isDevice(kj::StringPtr path) {
  struct stat info;
  if (stat(path.cStr(), &info) < 0) return errno == EACCES;
  return S_ISCHR(info.st_mode);
}

}  // namespace

kj::Maybe<Endpoint> autoEndpoint(kj::StringPtr virtioPort, kj::StringPtr vsockDevice) {
  if (isDevice(virtioPort)) return Endpoint(SerialEndpoint{kj::str(virtioPort)});
  if (isDevice(vsockDevice)) return Endpoint(VsockEndpoint{CID_HOST, DEFAULT_PORT});
  return nullptr;
}

kj::String noEndpoint(kj::StringPtr virtioPort, kj::StringPtr vsockDevice) {
  return kj::str("this guest has no link to its host: neither ", virtioPort, " nor ", vsockDevice,
                 " is there; give the VM a virtio-serial port with the name org.postern.agent.0 or a vsock device, or "
                 "write 'connect' into agent.toml");
}

}  // namespace postern::guest
