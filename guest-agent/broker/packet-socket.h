#pragma once
// PacketSocket: one end of the SOCK_SEQPACKET pair between agent and broker, on a loop: whole messages, of which each
// may carry one descriptor. Both ends of the contract are in broker-wire.h.

#include <kj/async-unix.h>
#include <kj/io.h>
#include <kj/one-of.h>

#include <deque>

namespace postern::guest {

struct Packet {
  kj::Array<kj::byte> bytes;
  kj::Maybe<kj::AutoCloseFd> fd;
};
struct PacketsEnded {};   // the other end is closed; also upon an empty message, which nobody here sends
struct PacketTooMuch {};  // a message that is too long or carries descriptors that it must not; none of them stays open

class PacketSocket {
 public:
  enum class Descriptors { REFUSED, TAKEN };

  PacketSocket(kj::AutoCloseFd fd, kj::UnixEventPort& port, size_t maxBytes, Descriptors descriptors);
  KJ_DISALLOW_COPY(PacketSocket);

  // The next message. One call at a time.
  kj::Promise<kj::OneOf<Packet, PacketsEnded, PacketTooMuch>> receive();

  // Sends in the order of the calls; what the kernel does not take at once waits here. Whoever sends bounds what waits.
  // To an end that is closed nothing is sent, and receive() tells.
  void send(Packet packet);
  size_t unsent() const { return outgoing.size(); }

 private:
  kj::AutoCloseFd fd;
  kj::UnixEventPort::FdObserver observer;
  Descriptors descriptors;
  kj::Array<kj::byte> buffer;
  std::deque<Packet> outgoing;
  bool waitsToSend = false;
  kj::Promise<void> sending = kj::READY_NOW;

  using Received = kj::OneOf<Packet, PacketsEnded, PacketTooMuch>;
  kj::Maybe<Received> receiveNow();
  void sendNow();
  kj::Promise<void> sendWhenWritable();
};

}  // namespace postern::guest
