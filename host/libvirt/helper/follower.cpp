#include "host/libvirt/helper/follower.h"

#include <errno.h>
#include <sys/socket.h>

namespace postern::libvirt {

Follower::Follower(const Libvirt& libvirt, kj::StringPtr domain, int socket)
    : libvirt(libvirt), domain(domain), socket(socket) {
  // Of all domains: one that is defined anew has another UUID and the same name.
  auto* connection = libvirt.get();
  auto onLifecycle = [](virConnectPtr, virDomainPtr about, int event, int detail, void* self) {
    auto& follower = *static_cast<Follower*>(self);
    follower.heard(about, [&] { follower.lifecycle(event, detail); });
    return 0;
  };
  auto onReboot = [](virConnectPtr, virDomainPtr about, void* self) {
    auto& follower = *static_cast<Follower*>(self);
    follower.heard(about, [&] { follower.rebooted(); });
  };
  lifecycleEvents = virConnectDomainEventRegisterAny(
      connection, nullptr, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
      VIR_DOMAIN_EVENT_CALLBACK(static_cast<virConnectDomainEventCallback>(onLifecycle)), this, nullptr);
  rebootEvents = virConnectDomainEventRegisterAny(
      connection, nullptr, VIR_DOMAIN_EVENT_ID_REBOOT,
      VIR_DOMAIN_EVENT_CALLBACK(static_cast<virConnectDomainEventGenericCallback>(onReboot)), this, nullptr);
  if (lifecycleEvents < 0 || rebootEvents < 0) failAs("libvirt tells no events");
  auto onClose = [](virConnectPtr, int, void* self) { static_cast<Follower*>(self)->end(); };
  if (virConnectRegisterCloseCallback(connection, onClose, this, nullptr) < 0) failAs("libvirt does not tell its end");
  auto onSocket = [](int, int, int, void* self) {
    auto& follower = *static_cast<Follower*>(self);
    follower.guarded([&] { follower.readSocket(); });
  };
  watch = virEventAddHandle(socket, VIR_EVENT_HANDLE_READABLE, onSocket, this, nullptr);
  if (watch < 0) failAs("libvirt's event loop does not take the socket");
}

// The connection may be dead already; then these say so, and nobody minds.
Follower::~Follower() noexcept {
  virEventRemoveHandle(watch);
  virConnectUnregisterCloseCallback(libvirt.get(), [](virConnectPtr, int, void*) {});
  virConnectDomainEventDeregisterAny(libvirt.get(), lifecycleEvents);
  virConnectDomainEventDeregisterAny(libvirt.get(), rebootEvents);
}

void Follower::run() {
  while (!ended) {
    if (virEventRunDefaultImpl() < 0) failAs("libvirt's event loop fails");
  }
  KJ_IF_MAYBE (thrown, failure) throw kj::mv(*thrown);
}

void Follower::readSocket() {
  char chunk[4096];
  ssize_t n = recv(socket, chunk, sizeof(chunk), MSG_DONTWAIT);
  if (n > 0) return received(kj::arrayPtr(chunk, static_cast<size_t>(n)));
  if (n == 0 || (errno != EAGAIN && errno != EINTR)) end();
}

void Follower::say(kj::StringPtr text) {
  auto rest = text.asArray();
  while (rest.size() > 0 && !ended) {
    ssize_t n = ::send(socket, rest.begin(), rest.size(), MSG_NOSIGNAL);
    if (n < 0 && errno != EINTR) return end();
    if (n > 0) rest = rest.slice(static_cast<size_t>(n), rest.size());
  }
}

}  // namespace postern::libvirt
