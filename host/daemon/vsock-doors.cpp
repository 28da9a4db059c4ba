#include "host/daemon/vsock-doors.h"

#include "host/log/log.h"

namespace postern::host {

struct VsockDoors::Door {
  kj::Own<Listener> listener;
  Doorkeeper doorkeeper;
  kj::Promise<void> serving = nullptr;

  Door(kj::Own<Listener> l, Admission& admission, const kj::MonotonicClock& clock, PickVm pickVm)
      : listener(kj::mv(l)), doorkeeper(*listener, admission, clock, kj::mv(pickVm)) {}
};

VsockDoors::VsockDoors(kj::UnixEventPort& port, Admission& admission, Handler& handler)
    : port(port), admission(admission), handler(handler), strangers(port.getTimer(), 5, 1) {}
VsockDoors::~VsockDoors() noexcept(false) {}

void VsockDoors::open(uint32_t number, kj::StringPtr vm) {
  if (doors.find(number) != nullptr) return;
  auto listening = listenOn(port, port.getTimer(), Endpoint(VsockEndpoint{CID_ANY, number}));
  KJ_IF_MAYBE (error, listening.tryGet<TransportError>()) {
    handler.vsockDoorFailed(vm, error->text);
    return;
  }
  auto pick = [this](const PeerAddress& peer) -> kj::Maybe<kj::String> {
    KJ_IF_MAYBE (address, peer.tryGet<VsockPeer>()) return handler.vmOfCid(address->cid);
    return nullptr;
  };
  auto door = kj::heap<Door>(kj::mv(listening.get<kj::Own<Listener>>()), admission, port.getTimer(), kj::mv(pick));
  auto& reference = *door;
  door->serving = serve(reference).eagerlyEvaluate(
      [](kj::Exception&& e) { logEvent(LogLevel::ERROR, "vsock-door-failed", e.getDescription()); });
  doors.insert(number, kj::mv(door));
}

kj::Promise<void> VsockDoors::serve(Door& door) {
  return door.doorkeeper.next().then([this, &door](Doorkeeper::Outcome outcome) {
    KJ_SWITCH_ONEOF(outcome) {
      KJ_CASE_ONEOF(visitor, Visitor) {
        handler.vsockVisitor(kj::mv(visitor));
      }
      KJ_CASE_ONEOF(turned, TurnedAway) {
        handler.vsockTurnedAway(turned);
        if (turned.why.is<Stranger>()) strange(turned.peer);
      }
    }
    return serve(door);
  });
}

void VsockDoors::strange(const PeerAddress& peer) {
  auto cid = peer.is<VsockPeer>() ? kj::str(peer.get<VsockPeer>().cid) : kj::String();
  KJ_IF_MAYBE (leftOut, strangers.take(cid)) handler.vsockStranger(peer, *leftOut);
}

}  // namespace postern::host
