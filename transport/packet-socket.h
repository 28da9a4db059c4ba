#pragma once
// PacketSocket: one end of a SOCK_SEQPACKET pair between two processes of one machine, on a loop: whole messages, of
// which each may bring descriptors.
//
// Guarantees: a message that is longer than its receiver's buffer, or brings descriptors where none are taken, is told
// as such and leaves nothing open; of more descriptors than are taken the rest never becomes ours. Nothing blocks.
// Owns the descriptor; destroying it closes the socket, and what was not yet sent is gone.

#include <kj/async-unix.h>
#include <kj/io.h>
#include <kj/one-of.h>
#include <kj/vector.h>

#include <deque>

#include "transport/close-elsewhere.h"

namespace postern {

// In one message; what a socket takes may be less.
constexpr size_t MAX_PACKET_DESCRIPTORS = 2;

struct Packet {
  kj::Array<kj::byte> bytes;
  kj::Vector<kj::AutoCloseFd> fds = {};
};
// A message that lies in its receiver's buffer.
struct PacketInBuffer {
  size_t bytes;
  kj::Vector<kj::AutoCloseFd> fds;
  bool fdsWereLost;  // some did not arrive: more than are taken, or this process has too many open
};
struct PacketsEnded {};   // the other end is closed; also upon an empty message, which nobody here sends
struct PacketTooMuch {};  // a message that is too long or brings descriptors that it must not; none of them stays open

class PacketSocket {
 public:
  // Takes messages of up to `maxBytes` with up to `maxDescriptors`.
  PacketSocket(kj::AutoCloseFd fd, kj::UnixEventPort& port, size_t maxBytes, size_t maxDescriptors);
  KJ_DISALLOW_COPY(PacketSocket);

  // The next message. One call at a time, of either kind.
  kj::Promise<kj::OneOf<Packet, PacketsEnded, PacketTooMuch>> receive();
  // Without a copy: `buffer` is maxBytes long and outlives the promise.
  kj::Promise<kj::OneOf<PacketInBuffer, PacketsEnded, PacketTooMuch>> receiveInto(kj::ArrayPtr<kj::byte> buffer);

  // Sends in the order of the calls; what the kernel does not take at once waits here. Whoever sends bounds what waits.
  // To an end that is closed nothing is sent, and receive() tells. At most MAX_PACKET_DESCRIPTORS.
  void send(Packet packet);
  size_t unsent() const { return outgoing.size(); }  // messages
  size_t unsentBytes() const { return outgoingBytes; }
  // Once nothing waits here any more. One waiter at a time.
  kj::Promise<void> whenSent();
  // Once the other end is closed, though what it had sent may lie unread. Once.
  kj::Promise<void> whenGone() { return observer.whenWriteDisconnected(); }

 private:
  using InBuffer = kj::OneOf<PacketInBuffer, PacketsEnded, PacketTooMuch>;

  StrangersFd fd;
  kj::UnixEventPort::FdObserver observer;
  const size_t maxBytes;
  const size_t maxDescriptors;
  kj::Array<kj::byte> buffer;  // of receive()
  std::deque<Packet> outgoing;
  size_t outgoingBytes = 0;
  bool waitsToSend = false;
  kj::Maybe<kj::Own<kj::PromiseFulfiller<void>>> sentWaiter;
  kj::Promise<void> sending = kj::READY_NOW;

  kj::Maybe<InBuffer> receiveNow(kj::ArrayPtr<kj::byte> into);
  bool sendNow();
  kj::Promise<void> sendWhenWritable();
};

}  // namespace postern
