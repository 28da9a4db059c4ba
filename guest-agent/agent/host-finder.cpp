#include "guest-agent/agent/host-finder.h"

#include "guest-agent/agent/settlement.h"
#include "guest-agent/broker/auto-endpoint.h"
#include "guest-agent/log/log.h"

namespace postern::guest {

namespace {

constexpr kj::StringPtr VSOCK_DEVICE = "/dev/vsock"_kj;

Endpoint copy(const Endpoint& endpoint) {
  auto parsed = parseEndpoint(toString(endpoint));
  return kj::mv(parsed.get<Endpoint>());
}

}  // namespace

kj::Maybe<Endpoint> bundleEndpoint(const Paths& paths, kj::StringPtr transport) {
  if (transport.size() == 0) return nullptr;
  auto parsed = parseEndpoint(transport);
  if (parsed.is<Endpoint>()) {
    auto& endpoint = parsed.get<Endpoint>();
    if (endpoint.is<VsockEndpoint>()) return kj::mv(endpoint);
    auto ports = kj::str(paths.root, "/dev/virtio-ports/");
    // A plain name in that folder.
    bool isPort = false;
    KJ_IF_MAYBE (serial, endpoint.tryGet<SerialEndpoint>()) {
      isPort = serial->path.startsWith(ports) && serial->path.slice(ports.size()).findFirst('/') == nullptr;
    }
    if (isPort) return kj::mv(endpoint);
  }
  logWarning("transport-ignored",
             kj::str("a bundle names ", transport, " as its transport; to use it, write it as `connect` into [agent]"));
  return nullptr;
}

kj::Maybe<Endpoint> findHost(const Paths& paths, const kj::Maybe<Endpoint>& given, const Settings& settings,
                             kj::ArrayPtr<const FoundBundle> bundles) {
  KJ_IF_MAYBE (endpoint, given) return copy(*endpoint);
  KJ_IF_MAYBE (endpoint, settings.connect) return copy(*endpoint);
  for (auto& found : bundles) {
    KJ_IF_MAYBE (endpoint, bundleEndpoint(paths, found.bundle->transport)) return kj::mv(*endpoint);
  }
  KJ_IF_MAYBE (stored, storedTransport(paths)) {
    KJ_IF_MAYBE (endpoint, bundleEndpoint(paths, *stored)) return kj::mv(*endpoint);
  }
  return autoEndpoint(paths.virtioPort, VSOCK_DEVICE);
}

kj::String hostMissing(const Paths& paths) {
  return noEndpoint(paths.virtioPort, VSOCK_DEVICE);
}

}  // namespace postern::guest
