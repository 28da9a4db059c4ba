#pragma once
// OpenerLink: a mover's end of the socket to its opener. Outgoing frames are gathered into packets, each copied once;
// an incoming packet lies in this object until the next is asked for. Whoever sends looks at isFull(). One loop.

#include "protocol/transfer/opener-message.h"
#include "transport/packet-socket.h"
#include "transport/transfer/envelope.h"

namespace postern::transfer {

// Beside what the kernel holds. More than fits there is for an opener that tells of many failures while it is itself
// being sent to.
constexpr size_t OPENER_UNSENT_BYTES = size_t(256) << 10;

class OpenerLink {
 public:
  OpenerLink(kj::UnixEventPort& port, kj::AutoCloseFd socket)
      : socket(kj::heap<PacketSocket>(kj::mv(socket), port, MAX_PACKET_BYTES, MAX_PACKET_DESCRIPTORS)) {}
  KJ_DISALLOW_COPY(OpenerLink);

  // A frame as it came over the channel. False: it is too long for an envelope.
  [[nodiscard]] bool pass(const FrameView& frame, Envelope kind);
  // A message with a ToOpener.
  void put(FrameBuilder& message);
  void flush();
  bool isFull() const { return socket->unsentBytes() > OPENER_UNSENT_BYTES; }
  // Nothing may be asked for any more.
  void close() { socket = nullptr; }
  kj::Promise<void> whenSent() { return socket->whenSent(); }

  struct Incoming {
    kj::ArrayPtr<kj::byte> frames;  // valid until the next call
    kj::Vector<kj::AutoCloseFd> fds;
    bool fdsWereLost;
  };
  using Received = kj::OneOf<Incoming, PacketsEnded, PacketTooMuch>;
  kj::Promise<Received> receive();
  kj::Promise<void> whenGone() { return socket->whenGone(); }

 private:
  kj::Own<PacketSocket> socket;     // null once closed
  kj::Array<capnp::word> incoming;  // made with the first packet
  kj::Array<kj::byte> packet;       // that is being gathered
  size_t filled = 0;

  kj::ArrayPtr<kj::byte> room(size_t bytes);
};

}  // namespace postern::transfer
