#include "transport/transfer/opener-link.h"

#include <string.h>

namespace postern::transfer {

// Behind what was gathered; what does not fit into the same packet sends it first.
kj::ArrayPtr<kj::byte> OpenerLink::room(size_t bytes) {
  if (filled + bytes > packet.size()) {
    flush();
    packet = kj::heapArray<kj::byte>(kj::max(bytes, PACKET_FILL_BYTES));
  }
  auto result = packet.slice(filled, filled + bytes);
  filled += bytes;
  return result;
}

bool OpenerLink::pass(const FrameView& frame, Envelope kind) {
  auto whole = frame.whole();
  auto out = room(whole.size() + envelopeBytes());
  if (putIn(whole, kind, out)) return true;
  filled -= out.size();
  return false;
}

void OpenerLink::put(FrameBuilder& message) {
  message.put(room(message.bytes(0)), nullptr);
}

void OpenerLink::flush() {
  if (filled == 0) return;
  if (filled == packet.size()) {
    socket->send({kj::mv(packet)});
  } else if (filled < packet.size() / 4) {
    socket->send({kj::heapArray(packet.slice(0, filled))});
    filled = 0;
    return;  // what is left of the packet serves the next one
  } else {
    auto all = kj::mv(packet);
    auto begin = all.begin();
    socket->send({kj::arrayPtr(begin, filled).attach(kj::mv(all))});
  }
  packet = nullptr;
  filled = 0;
}

kj::Promise<OpenerLink::Received> OpenerLink::receive() {
  if (incoming == nullptr) incoming = kj::heapArray<capnp::word>((MAX_PACKET_BYTES + 7) / sizeof(capnp::word));
  auto buffer = incoming.asBytes().slice(0, MAX_PACKET_BYTES);
  return socket->receiveInto(buffer).then(
      [buffer](kj::OneOf<PacketInBuffer, PacketsEnded, PacketTooMuch> received) mutable -> Received {
        KJ_IF_MAYBE (packet, received.tryGet<PacketInBuffer>()) {
          return Incoming{buffer.slice(0, packet->bytes), kj::mv(packet->fds), packet->fdsWereLost};
        }
        if (received.is<PacketsEnded>()) return PacketsEnded{};
        return PacketTooMuch{};
      });
}

}  // namespace postern::transfer
